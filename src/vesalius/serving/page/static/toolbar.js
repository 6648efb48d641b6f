// SPDX-License-Identifier: Apache-2.0
// Layout, window and structures of the view.
import { h } from './dom.js'

// Center and width in Hounsfield units, as radiology departments commonly set them.
const WINDOWS = { 'Soft tissue': [40, 400], Lung: [-600, 1500], Bone: [400, 1800], Brain: [40, 80], Liver: [60, 160], Mediastinum: [50, 350] }
const LAYOUTS = [['all', 'All'], ['axial', 'Axial'], ['coronal', 'Coronal'], ['sagittal', 'Sagittal']]

// Name -> [black, white]; the first is what an image is shown with.
export function windows (image) {
  const automatic = { Automatic: image.range }
  if (image.unit !== 'HU') return automatic
  return { ...Object.fromEntries(Object.entries(WINDOWS).map(([name, [center, width]]) => [name, [center - width / 2, center + width / 2]])), ...automatic }
}

export function toolbar ({ at, screen, tools }) {
  const keys = {}
  tools.replaceChildren()
  if (!screen || !at.image) return keys
  const image = at.image
  const flat = image.shape[2] === 1
  const layouts = flat ? [] : LAYOUTS.map(([name, title]) => h('button', { 'data-layout': name, onclick: () => layout(name) }, title))

  function layout (name) {
    screen.layout(name)
    for (const one of layouts) one.setAttribute('aria-pressed', String(one.dataset.layout === name))
  }

  if (!flat) {
    LAYOUTS.forEach(([name], n) => { keys[String(n + 1)] = () => layout(name) })
    tools.append(...layouts, h('span', { class: 'gap' }))
    layout('all')
  }

  if (!image.color) {
    const choices = windows(image)
    const names = Object.keys(choices)
    const select = h('select', { 'aria-label': 'Window', onchange: () => screen.window(...choices[select.value]) },
      ...names.map((name) => h('option', {}, name)))
    keys.w = () => {
      select.value = names[(names.indexOf(select.value) + 1) % names.length]
      screen.window(...choices[select.value])
    }
    if (names.length > 1) tools.append(h('label', {}, 'Window', select))
  }

  if (image.channels > 1) {
    const slider = h('input', { type: 'range', min: 0, max: image.channels - 1, value: 0, 'aria-label': 'Channel' })
    const name = h('span', {}, image.channel_names[0] ?? '1')
    slider.addEventListener('input', () => {
      screen.frame(Number(slider.value))
      name.textContent = image.channel_names[slider.value] ?? String(Number(slider.value) + 1)
    })
    tools.append(h('label', {}, 'Channel', slider, name))
  }

  if (at.labels) {
    const slider = h('input', { type: 'range', min: 0, max: 100, value: Math.round(screen.opacity * 100), 'aria-label': 'Opacity of the structures' })
    slider.addEventListener('input', () => screen.setOpacity(slider.value / 100))
    const shown = h('button', { 'aria-pressed': String(screen.shown), onclick: () => keys.o() }, 'Structures')
    keys.o = () => {
      screen.toggle()
      shown.setAttribute('aria-pressed', String(screen.shown))
    }
    tools.append(h('span', { class: 'gap' }), shown, slider)
  }
  return keys
}
