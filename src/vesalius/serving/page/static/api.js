// SPDX-License-Identifier: Apache-2.0
// Calls of the server, by the session's cookie; what changes something bears the session's token.

let token = ''

export class Refused extends Error {
  constructor (status, words) {
    super(words)
    this.status = status
  }
}

export async function call (method, path, { body = null, raw = null, headers = {}, signal } = {}) {
  const sent = { ...headers }
  if (token) sent['X-Vesalius-Token'] = token
  if (body !== null) sent['Content-Type'] = 'application/json'
  let answer
  try {
    answer = await fetch(path, {
      method,
      headers: sent,
      body: raw ?? (body === null ? null : JSON.stringify(body)),
      credentials: 'same-origin',
      signal
    })
  } catch (error) {
    if (error.name === 'AbortError') throw error
    throw new Refused(0, 'the server does not answer')
  }
  const text = await answer.text()
  const known = answer.headers.get('content-type')?.includes('json') ? JSON.parse(text) : null
  if (answer.ok) return known
  if (answer.status === 401) token = ''
  throw new Refused(answer.status, words(known?.detail) || text || `the server said ${answer.status}`)
}

function words (detail) {
  return Array.isArray(detail) ? detail.map((one) => `${one.loc?.at(-1)}: ${one.msg}`).join('; ') : detail
}

export const get = (path, options) => call('GET', path, options)
export const post = (path, body, options = {}) => call('POST', path, { body, ...options })

export async function begin (key) {
  const session = await call('POST', '/api/session', { headers: { Authorization: `Bearer ${key}` } })
  token = session.token
  return session
}

export async function resume () {
  const session = await get('/api/session')
  token = session.token
  return session
}

export async function end () {
  await call('DELETE', '/api/session')
  token = ''
}
