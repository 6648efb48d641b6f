// SPDX-License-Identifier: Apache-2.0
// The little Markdown that model cards hold: headings, lists, tables, paragraphs, code.
import { h } from './dom.js'

export function markdown (text) {
  const out = []
  let list = null
  let table = null
  for (const line of text.split('\n')) {
    const heading = line.match(/^(#{1,6}) (.*)$/)
    if (!line.startsWith('- ')) list = null
    if (!line.startsWith('|')) table = null
    if (heading) out.push(h(heading[1].length < 3 ? 'h2' : 'h3', {}, ...inline(heading[2])))
    else if (line.startsWith('- ')) {
      if (!list) out.push(list = h('ul'))
      list.append(h('li', {}, ...inline(line.slice(2))))
    } else if (/^\|[-| :]+\|$/.test(line)) continue
    else if (line.startsWith('|')) {
      const cells = line.slice(1, -1).split('|').map((cell) => cell.trim())
      const kind = table ? 'td' : 'th'
      if (!table) out.push(table = h('table'))
      table.append(h('tr', {}, ...cells.map((cell) => h(kind, {}, ...inline(cell)))))
    } else if (line.trim()) out.push(h('p', {}, ...inline(line)))
  }
  return out
}

function inline (text) {
  return text.split(/(`[^`]+`)/).map((part) => part.startsWith('`') && part.length > 1 ? h('code', { class: 'mono' }, part.slice(1, -1)) : part)
}
