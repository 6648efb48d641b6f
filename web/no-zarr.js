// SPDX-License-Identifier: Apache-2.0
// Stands for `zarrita`: the page loads NIfTI alone, and Zarr's codecs are half of NiiVue's bytes.
const refuse = () => {
  throw new Error('Zarr is not part of this page')
}

export const root = refuse
export const open = refuse
export const get = refuse
export class FetchStore {
  constructor () {
    refuse()
  }
}
