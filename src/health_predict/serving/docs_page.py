"""The documentation page: what every field is, and a request to try. One file, no script from elsewhere."""

import base64
import hashlib

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1a1a1a }
textarea { width: 100%; height: 22rem; font: 13px/1.4 ui-monospace, monospace }
pre { background: #f4f4f4; padding: .8rem; overflow: auto; font-size: 13px }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top; padding: .3rem .6rem;
border-bottom: 1px solid #ddd } code { font-size: 13px }
button { font: inherit; padding: .3rem 1rem; margin-right: .5rem }
"""
_SCRIPT = """
const $ = id => document.getElementById(id)
const cell = (row, text, tag = 'td') => { const c = document.createElement(tag); c.textContent = text; row.append(c) }
const rule = s => {
  const parts = s.anyOf || [s]
  return parts.map(p => p.enum ? p.enum.join(', ') : p.const !== undefined ? p.const
    : p.type === 'integer' ? `whole number ${p.minimum} to ${p.maximum}`
    : p.type === 'string' ? `text of at most ${p.maxLength} characters` : p.type).join(', or ')
}
fetch('openapi.json').then(r => r.json()).then(doc => {
  $('text').textContent = doc.info.description
  $('body').value = JSON.stringify(doc.paths['/predict'].post.requestBody.content['application/json'].example, null, 1)
  const schema = doc.components.schemas.Encounter
  for (const [name, field] of Object.entries(schema.properties)) {
    const row = $('fields').insertRow()
    cell(row, name); cell(row, schema.required.includes(name) ? 'yes' : 'no')
    cell(row, field.description); cell(row, rule(field)); cell(row, JSON.stringify((field.examples || [])[0] ?? ''))
  }
})
const ask = path => async () => {
  const headers = {'content-type': 'application/json'}
  if ($('key').value) headers['x-api-key'] = $('key').value
  const response = await fetch(path, {method: 'POST', headers, body: $('body').value})
  $('answer').textContent = `${response.status}\\n${JSON.stringify(await response.json(), null, 1)}`
}
$('predict').onclick = ask('predict'); $('explain').onclick = ask('explain')
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Health Predict</title><style>{_STYLE}</style></head><body>
<h1>Health Predict</h1><p id="text"></p>
<h2>Try a prediction</h2>
<p><label>API key, if one is needed: <input id="key" type="password" autocomplete="off"></label></p>
<textarea id="body" aria-label="Encounter as JSON" spellcheck="false"></textarea>
<p><button id="predict">Predict</button><button id="explain">Explain</button></p><pre id="answer" role="status"></pre>
<h2>Fields of an encounter</h2>
<table><thead><tr><th>Field<th>Required<th>Meaning<th>Values<th>Example</tr></thead><tbody id="fields"></tbody></table>
<p>Machine-readable: <a href="openapi.json">openapi.json</a>.</p>
<script>{_SCRIPT}</script></body></html>
"""
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; connect-src 'self'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
