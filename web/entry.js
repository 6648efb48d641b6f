// SPDX-License-Identifier: Apache-2.0
// What the page takes of NiiVue; all else is left out of the bundle.
export { NVImage, Niivue, SLICE_TYPE } from '@niivue/niivue'
