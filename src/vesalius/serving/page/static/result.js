// SPDX-License-Identifier: Apache-2.0
// What a run says of a study: structures with volumes, probabilities, doubt, notes.
import { get } from './api.js'
import { h, number } from './dom.js'
import { color } from './screen.js'

const DOUBTFUL = 0.7 // expected Dice below which a person is asked to look
let cards = null

export function result ({ at, screen }) {
  const one = at.result
  if (!one) return []
  const sections = []
  const answer = one.answer
  if (one.state !== 'done') {
    sections.push(h('section', {}, h('h2', {}, 'Result'), h('p', { class: one.state === 'refused' || one.state === 'failed' ? 'flag bad' : 'quiet' },
      { ready: 'The run has not begun yet.', leased: 'The run is at work.' }[one.state] ?? one.reason)))
  }
  if (at.labels) sections.push(legend(at, screen))
  if (answer.probabilities) sections.push(probabilities(answer))
  if (answer.notes?.length || answer.abstained || answer.outlier) {
    sections.push(h('section', {}, h('h2', {}, 'To note'),
      answer.abstained ? h('p', { class: 'flag' }, `The run abstains: ${answer.abstained === true ? 'it is not sure enough' : answer.abstained}`) : null,
      answer.outlier ? h('p', { class: 'flag' }, `The images are unlike those of the training${typeof answer.outlier === 'string' ? `: ${answer.outlier}` : ''}`) : null,
      ...(answer.notes ?? []).map((note) => h('p', { class: 'flag' }, note))))
  }
  sections.push(model(one))
  return sections
}

function legend (at, screen) {
  const number_ = at.result.objects.filter((one) => one.label_map).findIndex((one) => one.object === at.object)
  const expected = at.result.answer.expected_dice?.[number_] ?? {}
  const rows = Object.entries(at.labels.names).flatMap(([value, name]) => {
    const swatch = h('span', { class: 'swatch' })
    swatch.style.background = `rgb(${color(Number(value)).join(' ')})`
    const box = h('input', { type: 'checkbox', checked: true, 'aria-label': `show ${name}` })
    box.addEventListener('change', () => screen?.setVisible(Number(value), box.checked))
    const dice = expected[name]
    return [box, swatch, h('span', {}, name), h('span', { class: 'right' }, `${number(at.labels.volumes_ml[name] ?? 0)} ml`),
      h('span', { class: `right ${dice === undefined ? 'quiet' : dice < DOUBTFUL ? 'warn' : 'good'}`, title: 'Dice score that the run expects' }, dice === undefined ? '–' : number(dice, 2))]
  })
  const doubtful = Object.entries(expected).filter(([name, dice]) => dice < DOUBTFUL && (at.labels.volumes_ml[name] ?? 0) > 0).map(([name]) => name)
  return h('section', {}, h('h2', {}, 'Structures'),
    at.review ? h('p', { class: 'flag' }, `Shown as ${at.review.by} corrected it; the volumes are the run's.`) : null,
    h('div', { class: 'legend' }, h('span', {}), h('span', {}), h('span', { class: 'head' }, ''), h('span', { class: 'head right' }, 'volume'), h('span', { class: 'head right', title: 'Dice score that the run expects' }, 'exp. Dice'), ...rows),
    doubtful.length ? h('p', { class: 'flag', id: 'doubt' }, `Look closely: the run doubts ${doubtful.join(', ')}.`) : null)
}

function probabilities (answer) {
  const set = new Set(answer.label_set ?? [])
  const rows = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]).flatMap(([name, share]) => {
    const inner = h('i')
    inner.style.width = `${100 * share}%`
    return [h('span', {}, name), h('span', { class: set.size && !set.has(name) ? 'bar out' : 'bar' }, inner), h('span', { class: 'right' }, `${number(100 * share)} %`)]
  })
  const influence = (answer.images ?? []).filter((one) => one.influence !== undefined)
  return h('section', {}, h('h2', {}, answer.target || 'Answer'),
    h('p', {}, answer.predicted ? h('b', {}, answer.predicted) : 'no answer', answer.called ? `, by the operating point: ${answer.called}` : ''),
    h('div', { class: 'bars' }, ...rows),
    set.size ? h('p', { class: 'quiet' }, `Label set: ${[...set].join(', ')}`) : null,
    influence.length ? h('p', { class: 'quiet' }, `Influence: ${influence.map((one) => `image ${one.image} ${number(one.influence, 2)}`).join(', ')}`) : null)
}

function model (one) {
  const limits = h('div', { class: 'quiet' })
  cards ??= get('/api/models').catch(() => { cards = null; return [] })
  cards.then((found) => {
    const card = found.find((other) => other.run === one.run)?.card ?? ''
    const part = card.split(/^## /m).find((text) => text.startsWith('Intended use')) ?? ''
    const lines = part.split('\n').filter((line) => line.startsWith('- ')).map((line) => line.slice(2))
    limits.replaceChildren(...(lines.length ? lines.map((line) => h('p', {}, line)) : [h('p', {}, 'The run states no limits: its folder has no card.')]))
  })
  return h('section', {}, h('h2', {}, 'Model'),
    h('dl', { class: 'facts' }, h('dt', {}, 'Run'), h('dd', { class: 'mono' }, one.run), h('dt', {}, 'Task'), h('dd', {}, one.task)),
    h('details', {}, h('summary', {}, 'Intended use and limits'), limits), h('a', { href: '#/models' }, 'All about the models'))
}
