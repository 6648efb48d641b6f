// SPDX-License-Identifier: Apache-2.0
// One study: its images with what a run found on them, and what a person says of it.
import { get } from './api.js'
import { date, h, number, person, say } from './dom.js'
import { result } from './result.js'
import { review } from './review.js'
import { Screen, canShow } from './screen.js'
import { similar } from './similar.js'
import { toolbar, windows } from './toolbar.js'

const NO_WEBGL = [
  'This browser cannot draw images: it has no WebGL 2.',
  'Turn on hardware acceleration in its settings, or use a current Firefox, Chrome, Edge or Safari. Remote desktops and virtual machines may need software rendering to be allowed (in Chrome: --enable-unsafe-swiftshader).',
  'What the run found is beside; the results are in the PACS, too.'
]

export async function viewer (main, session, study) {
  const found = await get(`/api/studies/${study}/view`)
  const at = { study, session, found, result: null, object: null, series: '', image: 0, labels: null, review: null }
  const canvas = h('canvas', { tabindex: 0, 'aria-label': 'Images; arrow keys move through slices' })
  const over = h('div', { class: 'over' })
  const tools = h('div', { class: 'tools', role: 'toolbar', 'aria-label': 'View' })
  const pens = h('div', { class: 'tools draw', role: 'toolbar', 'aria-label': 'Pen', hidden: true })
  const where = h('div', { class: 'where mono' })
  const panel = h('aside', { class: 'panel', 'aria-label': 'Study' })
  main.replaceChildren(h('div', { class: 'viewer' },
    h('div', { class: 'stage' }, tools, pens, h('div', { class: 'canvas' }, canvas, over), where), panel))

  let screen = null
  if (canShow()) {
    screen = new Screen(canvas, moved, () => reviewing?.drew())
    await screen.open()
  } else over.replaceChildren(h('div', { role: 'alert', id: 'no-webgl' }, ...NO_WEBGL.map((one) => h('p', {}, one))))
  let viewing = {} // keys of the tool bar
  let reviewing = null
  const context = { at, screen, tools, pens, reload }

  function moved (place) {
    if (!place) return
    where.replaceChildren(
      h('span', {}, `voxel ${place.voxel.join(' ')}`),
      h('span', {}, at.image.calibrated ? `R ${number(place.mm[0])}  A ${number(place.mm[1])}  S ${number(place.mm[2])} mm` : 'without millimeters'),
      place.value === undefined || at.image.color ? null : h('span', {}, `${number(place.value, Number.isInteger(place.value) ? 0 : 2)} ${at.image.unit}`),
      h('span', {}, place.labels.join(', ')))
    where.dataset.voxel = place.voxel.join(' ')
    where.dataset.value = place.value
  }

  // Choose a result, or a series alone, and show it.
  async function choose (one, object = null, series = '') {
    at.result = one
    at.object = object
    at.series = series
    at.review = null
    await load()
  }

  async function load () {
    canvas.dataset.ready = ''
    if (screen) over.replaceChildren(h('div', {}, 'Loading the images …'))
    let layers = []
    at.labels = null
    let index = 0
    let wrong = null
    try {
      if (at.object) {
        at.labels = await get(`/api/studies/${study}/labels/${at.object}`)
        at.series = at.labels.series
        index = at.labels.image
        layers = Array.from({ length: at.labels.layers }, (_, n) => `/api/studies/${study}/labels/${at.object}/${n}.nii.gz`)
        const last = found.reviews.filter((one) => one.object === at.object).at(-1)
        if (last?.corrected) {
          at.review = last
          layers = [`/api/studies/${study}/reviews/${last.number}/mask.nii.gz`]
        }
      }
      const { images } = at.series ? await get(`/api/studies/${study}/series/${at.series}/view`) : { images: [] }
      at.image = images[index] ?? null
      if (screen && at.image) {
        await screen.show(at.image, `/api/studies/${study}/series/${at.series}/view/${index}.nii.gz`, Object.values(windows(at.image))[0], layers, at.labels?.names ?? {})
      }
    } catch (error) {
      if (error.status === 401) throw error
      wrong = error
      at.image = null
    }
    if (screen) {
      over.replaceChildren(...(wrong
        ? [h('div', { role: 'alert' }, h('p', { class: 'bad' }, 'These images cannot be shown.'), h('p', {}, wrong.message))]
        : at.image ? [] : [h('div', {}, 'There is no image to show.')]))
    }
    draw()
    canvas.dataset.ready = at.image ? 'image' : 'none'
  }

  async function reload () {
    Object.assign(found, await get(`/api/studies/${study}/view`))
    at.result = found.results.find((one) => one.job === at.result?.job) ?? null
    await load()
  }

  function draw () {
    reviewing?.close()
    viewing = toolbar(context)
    reviewing = review(context)
    panel.replaceChildren(who(), chooser(), ...result(context), reviewing.section, similar(context), keys())
  }

  function who () {
    const image = at.image
    return h('section', {}, h('div', { class: 'who' }, person(found.patient_name) || found.patient_id || 'without a name'),
      h('div', { class: 'quiet' }, [found.patient_id, found.sex, date(found.birth_date) && `born ${date(found.birth_date)}`].filter(Boolean).join(' · ')),
      h('p', {}, [found.description, date(found.date)].filter(Boolean).join(', ')),
      image && h('div', { class: 'quiet mono' }, `${image.modality} ${image.shape.join(' × ')}, ${image.calibrated ? `${image.spacing_mm.map((one) => number(one, 2)).join(' × ')} mm` : 'no millimeters'}`))
  }

  function chooser () {
    const rows = []
    for (const one of found.results) {
      const maps = one.objects.filter((object) => object.label_map)
      const title = `${one.task} ${one.run.slice(0, 8)}`
      const state = one.state === 'done' ? '' : `, ${one.state === 'leased' ? 'being worked on' : one.state}`
      for (const [n, map] of (maps.length ? maps : [null]).entries()) {
        const now = at.result === one && (at.object ?? null) === (map?.object ?? null)
        rows.push(h('button', { 'aria-pressed': String(now), onclick: () => choose(one, map?.object, map ? '' : one.series[0]) },
          title, maps.length > 1 ? `, image ${n + 1}` : '', state))
      }
    }
    for (const one of found.series) {
      const now = !at.object && at.series === one.series
      rows.push(h('button', { 'aria-pressed': String(now), onclick: () => choose(at.result?.series.includes(one.series) && !at.object ? at.result : null, null, one.series) },
        `Series ${one.number ?? ''} ${one.modality ?? ''} ${one.description ?? ''} (${one.instances})`))
    }
    return h('section', {}, h('h2', {}, 'Results and series'), h('div', { class: 'list' }, ...rows))
  }

  function keys () {
    const rows = [['↑ ↓', 'slices'], ['Shift ↑ ↓', 'from front to back'], ['← →', 'from side to side'], ['1 2 3 4', 'layout'], ['O', 'structures on, off'], ['W', 'next window'],
      ['D', 'correct'], ['E', 'eraser'], ['[ ]', 'size of the pen'], ['Z', 'undo'], ['Esc', 'back to the list']]
    return h('section', { class: 'wide' }, h('h2', {}, 'Keys'), h('dl', { class: 'facts' }, ...rows.flatMap(([key, does]) => [h('dt', {}, h('kbd', {}, key)), h('dd', {}, does)])))
  }

  function pressed (event) {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== 'checkbox' && event.target.type !== 'range'
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key
    const ranged = event.target.type === 'range' && key.startsWith('Arrow')
    if (ranged || ['Tab', 'Enter', ' ', 'Shift'].includes(key)) return
    const steps = {
      ArrowUp: event.shiftKey ? [1, 1] : [2, 1],
      ArrowDown: event.shiftKey ? [1, -1] : [2, -1],
      PageUp: [2, 10],
      PageDown: [2, -10],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1]
    }
    const deeds = { ...viewing, ...reviewing?.keys }
    if (steps[key] && screen && at.image) screen.step(...steps[key])
    else if (deeds[key]) deeds[key]()
    else if (key === 'Escape') {
      if (!reviewing?.escape()) location.hash = '#/'
    } else if (event.target !== canvas) return // NiiVue has keys of its own on its canvas
    event.preventDefault()
    event.stopPropagation()
  }

  document.addEventListener('keydown', pressed, true)
  const first = found.results.find((one) => one.state === 'done') ?? found.results[0] ?? null
  const map = first?.objects.find((object) => object.label_map)
  const inputs = first?.series.find((uid) => found.series.some((one) => one.series === uid))
  await choose(first, map?.object, map ? '' : inputs ?? found.series[0]?.series ?? '')
  if (first && first.state !== 'done') say(first.reason || 'The run has not answered yet.', Boolean(first.reason))
  canvas.focus()
  return () => {
    document.removeEventListener('keydown', pressed, true)
    screen?.close()
  }
}
