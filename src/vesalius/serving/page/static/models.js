// SPDX-License-Identifier: Apache-2.0
// The runs that answer here: versions, health, drift, throughput, cards.
import { get } from './api.js'
import { duration, h, number } from './dom.js'
import { markdown } from './markdown.js'

// What another part of the server tells, or null where it does not.
async function asked (path) {
  try {
    return await get(path)
  } catch (error) {
    if (error.status === 401) throw error
    return null
  }
}

export async function models (main) {
  const [runs, health, rules, drift] = await Promise.all([get('/api/models'), healthOf(), asked('/api/rules'), asked('/api/drift')])
  const histories = await Promise.all((rules ?? []).map((rule) => asked(`/api/rules/${encodeURIComponent(rule.rule)}/versions`)))
  main.replaceChildren(h('div', { class: 'page' }, h('h1', {}, 'Models'), server(health),
    rules === null ? h('p', { class: 'quiet' }, 'Versions, golden cases and drift: not known; this server does not tell.') : null,
    rules?.length === 0 ? h('p', { class: 'quiet' }, 'No run is served at the moment.') : null,
    h('div', { class: 'cards' }, ...(rules ?? []).map((rule, n) => active(rule, histories[n] ?? [], drift))),
    h('h2', { class: 'part' }, 'Runs that answered'),
    h('div', { class: 'cards' }, ...(runs.length ? runs.map(card) : [h('p', { class: 'quiet' }, 'No run has been asked for anything yet.')]))))
}

async function healthOf () {
  const answer = await fetch('/health', { credentials: 'same-origin' }).catch(() => null)
  return answer ? answer.json() : null
}

function server (health) {
  if (!health) return h('p', { class: 'flag bad' }, 'The server does not say how it is.')
  const problems = health.problems ?? []
  return h('div', {}, h('p', {}, h('span', { class: `state ${health.status === 'healthy' ? 'reviewed' : 'failed'}` }, `The server is ${health.status}`), h('span', { class: 'quiet' }, `  version ${health.version}`)),
    ...problems.map((one) => h('p', { class: 'flag bad' }, one)))
}

// A rule: which run has it, since when, whether that run still answers as it did, and for whom.
function active (rule, history, drift) {
  const looks = (drift?.looks ?? []).filter((one) => one.rule === rule.rule)
  const health = rule.healthy === null
    ? h('span', { class: 'state' }, 'not checked yet')
    : rule.healthy ? h('span', { class: 'state reviewed' }, `reproduces its ${rule.golden_cases} golden cases`) : h('span', { class: 'state failed' }, rule.problem || 'not healthy')
  return h('article', { class: 'card' }, h('h1', {}, rule.rule), h('p', {}, h('b', {}, rule.name), `, version ${rule.version} since ${when(rule.since)} `, h('span', { class: 'quiet' }, [`by ${rule.by}`, rule.reason].filter(Boolean).join(': '))),
    h('p', {}, health),
    rule.golden_cases === 0 && rule.healthy ? h('p', { class: 'quiet' }, 'It has no golden cases: only that its files are whole is known.') : null,
    rule.shadow ? h('p', {}, `A candidate looks on: ${Object.entries(rule.shadow).filter(([, value]) => ['string', 'number'].includes(typeof value)).map(([name, value]) => `${name.replaceAll('_', ' ')} ${value}`).join(', ')}`) : null,
    h('h3', {}, 'Drift, by scanner and site'),
    looks.length
      ? h('ul', {}, ...looks.map((one) => h('li', {}, h('span', { class: one.alarms ? 'bad' : 'good' }, one.alarms ? `${one.alarms} alarms` : 'no drift'), ` ${one.of || 'all'}, ${one.studies} studies `,
        ...one.facts.filter((fact) => fact.alarm).map((fact) => h('div', {}, `${fact.fact}: ${fact.recent.toPrecision(4)} instead of ${fact.reference.toPrecision(4)}`)))))
      : h('p', { class: 'quiet' }, `Not known yet: ${rule.observed} studies of the ${drift?.first ?? '?'} that are to be compared with.`),
    history.length > 1 ? h('details', {}, h('summary', {}, `${history.length} versions`), h('ol', {}, ...history.map((one) => h('li', {}, `${one.name} (${one.version}), since ${when(one.since)} by ${one.by}`, one.reason ? `: ${one.reason}` : '', one.rolled_back ? h('span', { class: 'warn' }, `, rolled back ${when(one.rolled_back)}`) : '')))) : null)
}

const when = (text) => text ? new Date(text).toLocaleString() : ''

function card (one) {
  const each = one.seconds_each
  const facts = [
    [number(one.done, 0), 'answered'],
    [number(one.done_in_a_day, 0), 'in a day'],
    [number(one.waiting, 0), 'waiting'],
    [number(one.refused, 0), 'refused'],
    [number(one.failed, 0), 'failed'],
    [each ? duration(each.median) : '–', each ? `median until answered, of ${each.of}` : 'until answered: not known yet'],
    [one.seconds_since_last === null ? '–' : duration(one.seconds_since_last), one.seconds_since_last === null ? 'no answer yet' : 'since the last answer']
  ]
  const said = Object.entries({ accept: 'accepted', edit: 'corrected', reject: 'rejected' }).filter(([name]) => one.reviews[name]).map(([name, word]) => `${one.reviews[name]} ${word}`)
  return h('article', { class: 'card' }, h('h1', {}, `${one.task} `, h('span', { class: 'mono' }, one.run)),
    h('div', { class: 'numbers' }, ...facts.map(([value, words]) => h('div', {}, h('b', {}, value), h('span', {}, words)))),
    h('p', {}, said.length ? `Reviews: ${said.join(', ')}` : 'Reviews: none yet'),
    one.card ? h('details', {}, h('summary', {}, 'Model card: use, limits, scores, data'), h('div', { class: 'md' }, ...markdown(one.card))) : h('p', { class: 'quiet' }, 'The run has no card.'))
}
