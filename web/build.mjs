// SPDX-License-Identifier: Apache-2.0
// Bundle NiiVue for the page: one minified ES module, its licenses, and the hash of both.
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { build } from 'esbuild'

const OUT = '../src/vesalius/serving/page/static'
const found = await build({
  entryPoints: ['entry.js'],
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  alias: { zarrita: './no-zarr.js' },
  legalComments: 'none',
  banner: { js: '/*! NiiVue and what it stands on; licenses in niivue.LICENSES.txt */' },
  outfile: `${OUT}/niivue.js`,
  metafile: true
})

const packages = new Set()
for (const file of Object.keys(found.metafile.inputs)) {
  const at = file.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//)
  if (at) packages.add(at[1])
}
const licenses = [...packages].sort().map((name) => {
  const folder = `node_modules/${name}`
  const told = JSON.parse(readFileSync(`${folder}/package.json`, 'utf8'))
  const file = readdirSync(folder).find((one) => /^licen[sc]e/i.test(one))
  // NiiVue's package comes without the text of its license; it is kept here, from its repository.
  const path = file ? `${folder}/${file}` : 'niivue-LICENSE.txt'
  if (!file && name !== '@niivue/niivue') throw new Error(`${name} states no license`)
  return `${name} ${told.version} (${told.license})\n\n${readFileSync(path, 'utf8').trim()}\n`
})
writeFileSync(`${OUT}/niivue.LICENSES.txt`, licenses.join(`\n${'-'.repeat(72)}\n\n`))

const bundle = readFileSync(`${OUT}/niivue.js`)
const sha256 = createHash('sha256').update(bundle).digest('hex')
writeFileSync(`${OUT}/niivue.sha256`, `${sha256}  niivue.js\n`)
if (!existsSync(`${OUT}/index.html`)) throw new Error(`${OUT} is not the page's folder`)
console.log(`niivue.js: ${bundle.length} bytes, sha256 ${sha256}`)
