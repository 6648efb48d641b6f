// SPDX-License-Identifier: Apache-2.0
// The tools of drawing: a pen for each structure, an eraser, its size, undo, and sending.
import { call } from './api.js'
import { h, say } from './dom.js'
import { color } from './screen.js'

const SIZES = [1, 2, 3, 5, 8, 12, 18]

export async function pen ({ at, screen, pens }) {
  const values = Object.keys(at.labels.names).map(Number)
  const mask = at.review ? `/api/studies/${at.study}/reviews/${at.review.number}/mask.nii.gz` : `/api/studies/${at.study}/labels/${at.object}/0.nii.gz`
  await screen.draw(mask)
  let value = values[0] ?? 1
  let size = 2
  let strokes = 0
  const buttons = new Map()
  for (const one of [...values, 0]) {
    const swatch = h('span', { class: 'swatch' })
    if (one) swatch.style.background = `rgb(${color(one).join(' ')})`
    buttons.set(one, h('button', { onclick: () => take(one), 'data-pen': one }, swatch, ` ${one ? at.labels.names[one] : 'Eraser'}`))
  }
  const slider = h('input', { type: 'range', min: 0, max: SIZES.length - 1, value: SIZES.indexOf(size), 'aria-label': 'Size of the pen' })
  const width = h('span', {}, `${size} voxels`)
  const moves = h('button', { onclick: () => move() }, 'Move')
  const count = h('span', { class: 'quiet', id: 'strokes' }, '')
  slider.addEventListener('input', () => resize(Number(slider.value)))
  pens.replaceChildren(...buttons.values(), h('span', { class: 'gap' }), h('label', {}, 'Size', slider, width), h('button', { onclick: undo }, 'Undo'), moves, count)
  pens.hidden = false

  function take (one) {
    value = one
    screen.pen(value, size)
    press()
    moves.setAttribute('aria-pressed', 'false')
  }

  function press (none = false) {
    for (const [one, button] of buttons) button.setAttribute('aria-pressed', String(!none && one === value))
  }

  function resize (n) {
    size = SIZES[Math.min(Math.max(n, 0), SIZES.length - 1)]
    slider.value = SIZES.indexOf(size)
    width.textContent = size === 1 ? '1 voxel' : `${size} voxels`
    take(value)
  }

  function move () {
    screen.rest()
    press(true)
    moves.setAttribute('aria-pressed', 'true')
  }

  function undo () {
    if (!strokes) return say('There is nothing to undo.')
    screen.undo()
    strokes -= 1
    tell()
  }

  function tell () {
    count.textContent = strokes ? `${strokes} stroke${strokes > 1 ? 's' : ''}` : ''
  }

  take(value)
  return {
    keys: {
      e: () => take(0),
      z: undo,
      m: move,
      '[': () => resize(SIZES.indexOf(size) - 1),
      ']': () => resize(SIZES.indexOf(size) + 1)
    },
    drew () {
      strokes += 1
      tell()
    },
    async send () {
      return call('POST', `/api/studies/${at.study}/labels/${at.object}/masks`, { raw: await screen.mask(), headers: { 'Content-Type': 'application/gzip' } })
    },
    close () {
      pens.hidden = true
      pens.replaceChildren()
      screen.stopDrawing()
    }
  }
}
