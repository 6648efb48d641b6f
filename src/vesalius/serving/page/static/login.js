// SPDX-License-Identifier: Apache-2.0
// A key, given once; the browser keeps a cookie that no script can read.
import * as api from './api.js'
import { h } from './dom.js'

export function login (main, done) {
  const key = h('input', { type: 'password', id: 'key', autocomplete: 'current-password', required: true, spellcheck: 'false' })
  const wrong = h('p', { class: 'bad', role: 'alert' })
  const form = h('form', {
    onsubmit: async (event) => {
      event.preventDefault()
      wrong.textContent = ''
      try {
        done(await api.begin(key.value.trim()))
      } catch (error) {
        wrong.textContent = error.status === 401 ? 'The key is not valid.' : error.message
        key.select()
      }
    }
  }, h('input', { type: 'text', autocomplete: 'username', value: 'vesalius', hidden: true }), h('label', { for: 'key' }, 'Key'), key, h('button', { class: 'main' }, 'Log in'), wrong)
  main.replaceChildren(h('div', { class: 'plain login' }, h('h1', {}, 'Review'), form,
    h('p', { class: 'quiet' }, 'An administrator makes keys; the first one was printed when the server was first started.')))
  key.focus()
}
