// SPDX-License-Identifier: Apache-2.0
// What a person says of a result: accept, correct, reject, with reasons.
import { post } from './api.js'
import { h, say } from './dom.js'
import { pen } from './pen.js'

const SAID = { accept: 'accepted', edit: 'corrected', reject: 'rejected' }

export function review (context) {
  const { at, reload } = context
  const one = at.result
  const earlier = at.found.reviews.filter((other) => other.job === one?.job && other.object === (at.object ?? ''))
  const past = earlier.map((other) => h('div', { class: `said ${other.decision}` },
    h('b', {}, SAID[other.decision]), ` by ${other.by}, ${new Date(other.at * 1000).toLocaleString()}`,
    other.label ? h('div', {}, `right answer: ${other.label}`) : null,
    h('div', { class: 'quiet' }, other.reasons.map((code) => at.session.reasons[code]).join('; ')),
    other.comment ? h('div', {}, other.comment) : null))
  const none = { section: h('section', { hidden: !past.length }, h('h2', {}, 'Review'), ...past), keys: {}, escape: () => false, drew () {}, close () {} }
  if (!one || one.state !== 'done') return none
  if (!at.session.may_review) {
    none.section.hidden = false
    none.section.append(h('p', { class: 'quiet' }, 'Your key reads; to review, it needs the role review.'))
    return none
  }

  const classes = Object.keys(one.answer.probabilities ?? {})
  const drawable = Boolean(context.screen && at.image && at.labels?.drawable)
  const form = h('form', { hidden: true, onsubmit: send })
  const correct = h('button', { type: 'button', onclick: () => choose('edit'), disabled: !drawable && !classes.length, title: 'D' }, 'Correct')
  const buttons = { accept: h('button', { type: 'button', onclick: () => choose('accept') }, 'Accept'), edit: correct, reject: h('button', { type: 'button', onclick: () => choose('reject') }, 'Reject') }
  const why = drawable || classes.length || !at.labels ? null : h('p', { class: 'quiet' }, context.screen ? 'This label map has structures that overlap, or too many values: it cannot be drawn on here.' : 'Without WebGL nothing can be drawn here.')
  const section = h('section', { id: 'review' }, h('h2', {}, 'Review'), ...past, h('div', { class: 'row3' }, ...Object.values(buttons)), why, form)
  let decision = ''
  let drawing = null

  async function choose (name) {
    decision = name
    for (const [key, button] of Object.entries(buttons)) button.setAttribute('aria-pressed', String(key === name))
    if (name !== 'edit') stop()
    fill()
    form.hidden = false
    if (name === 'edit' && drawable && !drawing) {
      drawing = await pen(context).catch((error) => { say(error.message, true); return null })
    }
  }

  function stop () {
    drawing?.close()
    drawing = null
  }

  function fill () {
    const parts = []
    if (decision === 'edit' && classes.length) {
      parts.push(h('label', { class: 'check' }, 'Right answer', h('select', { name: 'label', required: true }, h('option', { value: '' }, 'choose …'), ...classes.filter((name) => name !== one.answer.predicted).map((name) => h('option', {}, name)))))
    }
    if (decision !== 'accept') {
      parts.push(h('fieldset', { class: 'reasons' }, h('legend', {}, decision === 'edit' ? 'Why it is corrected' : 'Why it is rejected'),
        ...Object.entries(at.session.reasons).map(([code, words]) => h('label', {}, h('input', { type: 'checkbox', name: 'reason', value: code }), words))))
    } else {
      parts.push(h('label', { class: 'check' }, h('input', { type: 'checkbox', name: 'learn' }), 'Also train on it as it is'))
    }
    parts.push(h('label', {}, 'Comment', h('textarea', { name: 'comment', maxlength: 2000 })))
    parts.push(h('div', { class: 'row3' }, h('button', { class: 'main', id: 'save' }, { accept: 'Save: accepted', edit: 'Save the correction', reject: 'Save: rejected' }[decision]),
      h('button', { type: 'button', onclick: cancel }, 'Cancel')))
    form.replaceChildren(...parts)
  }

  function cancel () {
    stop()
    decision = ''
    form.hidden = true
    for (const button of Object.values(buttons)) button.setAttribute('aria-pressed', 'false')
  }

  async function send (event) {
    event.preventDefault()
    const given = new FormData(form)
    const said = {
      job: one.job,
      object: at.object ?? '',
      decision,
      reasons: given.getAll('reason'),
      comment: given.get('comment').trim(),
      label: given.get('label') ?? '',
      learn: given.get('learn') === 'on'
    }
    if (decision !== 'accept' && !said.reasons.length) return say('Say why: choose at least one reason.', true)
    const save = form.querySelector('#save')
    save.disabled = true
    try {
      if (drawing) said.mask = (await drawing.send()).mask
      const kept = await post(`/api/studies/${at.study}/reviews`, said)
      stop()
      await reload()
      say(kept.not_learned ? `Saved. It was not added to what can be trained on: ${kept.not_learned}`
        : kept.learned_images ? 'Saved, and added to what can be trained on.' : 'Saved.', Boolean(kept.not_learned))
    } catch (error) {
      if (error.status === 401) throw error
      say(error.message, true)
      save.disabled = false
    }
  }

  return {
    section,
    get keys () {
      return { d: () => correct.disabled || choose('edit'), a: () => choose('accept'), r: () => choose('reject'), ...drawing?.keys }
    },
    drew: () => drawing?.drew(),
    escape () {
      if (!decision) return false
      cancel()
      return true
    },
    close: stop
  }
}
