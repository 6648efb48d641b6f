// SPDX-License-Identifier: Apache-2.0
// Elements from values: text is always text, so that nothing a file says becomes markup.

export function h (tag, attributes = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (name in element && typeof value === 'boolean') element[name] = value
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value)
  }
  element.append(...children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false))
  return element
}

export function say (words, bad = false) {
  const place = document.getElementById('said')
  place.className = bad ? 'bad' : ''
  place.textContent = words
  clearTimeout(say.timer)
  if (words) say.timer = setTimeout(() => say(''), bad ? 9000 : 4000)
}

export function number (value, digits = 1) {
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits })
}

export function date (text) {
  return /^\d{8}$/.test(text || '') ? `${text.slice(0, 4)}-${text.slice(4, 6)}-${text.slice(6)}` : text || ''
}

// DICOM's person name: family^given^middle^prefix^suffix (PS3.5 section 6.2.1)
export function person (text) {
  const [family, given] = (text || '').split('=')[0].split('^')
  return [family, given].filter(Boolean).join(', ')
}

export function duration (seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`
}
