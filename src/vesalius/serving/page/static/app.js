// SPDX-License-Identifier: Apache-2.0
// The page's frame: who is there, which of the pages is shown, and the way between them.
import * as api from './api.js'
import { h, say } from './dom.js'
import { login } from './login.js'
import { models } from './models.js'
import { worklist } from './worklist.js'

const main = document.getElementById('main')
let session = null
let leave = null

const PAGES = [
  ['', 'Worklist', () => worklist],
  ['models', 'Models', () => models]
]

async function show () {
  leave?.()
  leave = null
  say('')
  const [, page = '', ...rest] = (location.hash || '#/').split('/')
  if (session === null) {
    try {
      session = await api.resume()
    } catch (error) {
      if (error.status !== 401) return main.replaceChildren(h('p', { class: 'plain' }, error.message))
      bar('')
      return login(main, (found) => {
        session = found
        show()
      })
    }
  }
  bar(page)
  try {
    if (page === 'study') {
      const { viewer } = await import('./viewer.js')
      leave = await viewer(main, session, decodeURIComponent(rest[0]))
    } else {
      const found = PAGES.find(([name]) => name === page) ?? PAGES[0]
      leave = await found[2]()(main, session)
    }
  } catch (error) {
    failed(error)
  }
}

export function failed (error) {
  if (error.status === 401) {
    session = null
    return show()
  }
  main.replaceChildren(h('div', { class: 'plain' }, h('h1', {}, 'This did not work'),
    h('p', {}, error.message), h('a', { href: '#/' }, 'To the worklist')))
}

function bar (page) {
  document.getElementById('nav').replaceChildren(...(session === null
    ? []
    : PAGES.map(([name, title]) => h('a', { href: `#/${name}`, 'aria-current': name === page ? 'page' : null }, title))))
  document.getElementById('who').replaceChildren(...(session === null
    ? []
    : [h('span', { class: 'wide' }, session.name), h('button', { onclick: logOut }, 'Log out')]))
}

async function logOut () {
  await api.end().catch(() => {})
  session = null
  location.hash = '#/'
  show()
}

addEventListener('hashchange', show)
addEventListener('unhandledrejection', (event) => {
  if (event.reason?.status === 401) failed(event.reason)
  else say(event.reason?.message ?? String(event.reason), true)
})
show()
