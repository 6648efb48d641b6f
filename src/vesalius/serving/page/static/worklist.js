// SPDX-License-Identifier: Apache-2.0
// Studies with the state of their work, renewed every few seconds; all of it by keyboard too.
import { get } from './api.js'
import { date, h, number, person } from './dom.js'

const EVERY = 3000
const PART = 50
const WORDS = {
  receiving: 'arriving',
  waiting: 'waiting',
  working: 'being worked on',
  ready: 'to review',
  reviewed: 'reviewed',
  refused: 'refused',
  failed: 'failed',
  none: 'no run'
}
const DECIDED = { accept: 'accepted', edit: 'corrected', reject: 'rejected' }
let kept = { words: '', only: '', offset: 0, study: '' } // where the reader was, on the way back

export async function worklist (main) {
  let timer = 0
  let shown = ''
  const words = h('input', { type: 'search', placeholder: 'Patient, date, description …', 'aria-label': 'Filter', value: kept.words })
  const chips = h('span', { class: 'filters', role: 'group', 'aria-label': 'State' })
  const body = h('tbody')
  const more = h('div', { class: 'more' })
  const table = h('table', {}, h('thead', {}, h('tr', {}, ...['Patient', 'Study', 'Images', 'State', 'Found'].map((one, n) => h('th', { scope: 'col', class: n === 2 ? 'wide' : null }, one)))), body)
  main.replaceChildren(h('div', { class: 'page' }, h('h1', {}, 'Worklist'),
    h('div', { class: 'filters' }, words, chips), table, more,
    h('p', { class: 'keys wide' }, h('kbd', {}, '↑'), ' ', h('kbd', {}, '↓'), ' choose   ', h('kbd', {}, 'Enter'), ' open   ', h('kbd', {}, '/'), ' filter')))

  async function renew () {
    clearTimeout(timer)
    const asked = new URLSearchParams({ words: kept.words, only: kept.only, limit: PART, offset: kept.offset })
    const found = await get(`/api/worklist?${asked}`)
    const text = JSON.stringify(found)
    if (text !== shown) {
      shown = text
      draw(found)
    }
    timer = setTimeout(() => renew().catch(lost), EVERY)
  }

  function lost (error) {
    if (error.status === 401) throw error
    more.replaceChildren(h('span', { class: 'bad' }, `${error.message}; trying again`))
    timer = setTimeout(() => renew().catch(lost), EVERY)
  }

  function draw (found) {
    const focused = document.activeElement?.dataset?.study ?? ''
    const all = Object.values(found.counts).reduce((a, b) => a + b, 0)
    chips.replaceChildren(chip('', 'all', all), ...Object.entries(WORDS).map(([name, title]) => chip(name, title, found.counts[name] ?? 0)))
    body.replaceChildren(...found.studies.map(row))
    if (!found.studies.length) {
      body.append(h('tr', {}, h('td', { colspan: 5, class: 'quiet' }, all ? 'No study matches.' : 'No study has arrived yet.')))
    }
    const last = kept.offset + found.studies.length
    more.replaceChildren(...(found.matched > PART
      ? [h('button', { disabled: !kept.offset, onclick: () => turn(-PART) }, 'Before'),
          h('span', {}, `${kept.offset + 1} to ${last} of ${found.matched}`),
          h('button', { disabled: last >= found.matched, onclick: () => turn(PART) }, 'Next')]
      : []))
    if (focused) body.querySelector(`[data-study="${focused}"]`)?.focus()
  }

  function chip (name, title, count) {
    return h('button', { class: 'chip', 'aria-pressed': String(kept.only === name), onclick: () => choose({ only: name }) }, title, h('b', {}, String(count)))
  }

  function row (one) {
    const state = one.state === 'reviewed' ? DECIDED[one.decision] : WORDS[one.state]
    return h('tr', {
      class: 'row', tabindex: 0, 'data-study': one.study, role: 'link', onclick: () => open(one.study),
      onkeydown: (event) => { if (event.key === 'Enter') open(one.study) }
    },
    h('td', {}, person(one.patient_name) || one.patient_id || 'without a name', h('div', { class: 'sub' }, [one.patient_id, date(one.birth_date)].filter(Boolean).join(' · '))),
    h('td', {}, one.description || 'study', h('div', { class: 'sub' }, [date(one.date), one.modalities].filter(Boolean).join(' · '))),
    h('td', { class: 'wide' }, number(one.received, 0)),
    h('td', {}, h('span', { class: `state ${one.state}` }, state), one.reader ? h('div', { class: 'sub' }, one.reader) : null),
    h('td', {}, one.found))
  }

  function open (study) {
    kept.study = study
    location.hash = `#/study/${study}`
  }

  function choose (change) {
    kept = { ...kept, offset: 0, ...change }
    renew()
  }

  const turn = (by) => choose({ offset: Math.max(0, kept.offset + by) })

  let pause = 0
  words.addEventListener('input', () => {
    clearTimeout(pause)
    pause = setTimeout(() => choose({ words: words.value.trim() }), 200)
  })

  function keys (event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    if (event.key === '/' && document.activeElement !== words) {
      event.preventDefault()
      words.focus()
    } else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      const rows = [...body.querySelectorAll('.row')]
      const at = rows.indexOf(document.activeElement)
      const next = rows[event.key === 'ArrowDown' ? at + 1 : at - 1]
      if (next) {
        event.preventDefault()
        next.focus()
      } else if (event.key === 'ArrowUp') words.focus()
    } else if (event.key === 'Escape' && document.activeElement === words) body.querySelector('.row')?.focus()
  }

  document.addEventListener('keydown', keys)
  await renew()
  const here = kept.study && body.querySelector(`[data-study="${kept.study}"]`)
  ;(here || body.querySelector('.row'))?.focus()
  return () => {
    clearTimeout(timer)
    clearTimeout(pause)
    document.removeEventListener('keydown', keys)
  }
}
