// SPDX-License-Identifier: Apache-2.0
// Earlier cases that are like this one: by its images, by words, or by both.
import { post } from './api.js'
import { h, number } from './dom.js'

const kept = new Map() // study and series -> answer, while the page is open

export function similar ({ at }) {
  if (!at.session.archive) return h('section', { hidden: true })
  const name = `${at.study} ${at.series}`
  const words = h('input', { type: 'search', placeholder: 'and words …', 'aria-label': 'Words' })
  const out = h('div', {})
  const go = h('button', {}, 'Find')
  const form = h('form', {
    class: 'look',
    onsubmit: async (event) => {
      event.preventDefault()
      go.disabled = true
      out.replaceChildren(h('p', { class: 'quiet' }, 'Looking …'))
      try {
        const found = await post(`/api/studies/${at.study}/similar`, { series: at.series, words: words.value.trim() })
        kept.set(name, found)
        out.replaceChildren(...cases(found))
      } catch (error) {
        if (error.status === 401) throw error
        out.replaceChildren(h('p', { class: 'flag bad' }, error.message))
      } finally {
        go.disabled = false
      }
    }
  }, words, go)
  if (kept.has(name)) out.replaceChildren(...cases(kept.get(name)))
  return h('section', { id: 'similar' }, h('h2', {}, 'Similar cases'), form, out)
}

function cases (found) {
  const head = h('p', { class: found.known === false ? 'flag' : 'quiet' }, found.verdict)
  const rows = found.cases.flatMap((one) => {
    const picture = one.pictures?.[0]
    const facts = Object.entries(one.facts).filter(([, value]) => value !== null && value !== '').map(([, value]) => value).join(' · ')
    return [picture ? h('img', { src: picture, alt: `case ${one.rank}` }) : h('span', {}),
      h('div', {}, h('b', {}, `${one.rank}. `), facts,
        h('div', { class: 'quiet' }, [one.cosine === null ? '' : `images ${number(one.cosine, 2)}`, one.percentile === null ? '' : `closer than ${number(one.percentile)} % of pairs`].filter(Boolean).join(', ')),
        h('div', {}, ...one.text.map((part) => part.mark ? h(part.mark === 'contrary' ? 'del' : 'mark', {}, part.text) : part.text)),
        h('div', { class: 'quiet mono' }, one.case))]
  })
  return [head, h('div', { class: 'found' }, ...rows), ...found.notes.map((note) => h('p', { class: 'quiet' }, note))]
}
