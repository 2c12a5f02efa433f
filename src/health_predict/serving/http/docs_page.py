"""The documentation page: what every field is, and a request to try. One file, nothing from elsewhere."""

import base64
import hashlib

_STYLE = """
:root { --ink: #16232e; --soft: #52626f; --line: #d5dde3; --ground: #f4f7f9; --accent: #0b5c7a }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, "Segoe UI", sans-serif; margin: 0; color: var(--ink); background: #fff }
header { background: var(--accent); color: #fff; padding: 1.4rem 0 }
header p { margin: .2rem 0 0; max-width: 52rem } h1 { font-size: 1.5rem; margin: 0 }
.inside { margin: 0 auto; max-width: 76rem; padding: 0 1.5rem }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem } h3 { font-size: 1rem; margin: 1.4rem 0 .4rem }
.notice { border-left: 4px solid #b3261e; background: #fcefee; padding: .6rem 1rem; margin: 1rem 0 }
.try { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; align-items: start }
.try > * { min-width: 0 }
textarea { width: 100%; height: 27rem; padding: .8rem; border: 1px solid var(--line); border-radius: 4px;
font: 13px/1.45 ui-monospace, monospace; color: inherit }
input { font: inherit; padding: .3rem .5rem; border: 1px solid var(--line); border-radius: 4px }
button { font: inherit; padding: .45rem 1.3rem; margin: .6rem .5rem 0 0; border: 1px solid var(--accent);
border-radius: 4px; background: #fff; color: var(--accent); cursor: pointer }
button.first { background: var(--accent); color: #fff }
textarea:focus-visible, input:focus-visible, button:focus-visible, summary:focus-visible, a:focus-visible
{ outline: 3px solid #f0a830; outline-offset: 1px }
#answer { border: 1px solid var(--line); border-radius: 4px; padding: 1rem 1.2rem; min-height: 27rem }
#answer .big { font-size: 2.2rem; font-weight: 600; line-height: 1.2 } #answer p { margin: .3rem 0 }
.soft { color: var(--soft) }
pre { background: var(--ground); padding: .8rem; overflow: auto; font-size: 13px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .92rem }
th { color: var(--soft); font-weight: 600; white-space: nowrap }
td, th { text-align: left; vertical-align: top; padding: .45rem .8rem .45rem 0; border-bottom: 1px solid var(--line) }
.scroll table { table-layout: fixed; min-width: 56rem } .scroll td { overflow-wrap: anywhere }
.scroll td:first-child, .scroll td:last-child { font: 13px/1.7 ui-monospace, monospace }
th:first-child { width: 18% } th:nth-last-child(2) { width: 20% } th:last-child { width: 18% }
th:nth-child(2):nth-last-child(4) { width: 7% }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
footer { color: var(--soft); border-top: 1px solid var(--line); margin-top: 2.5rem; padding: 1rem 0 2rem }
@media (max-width: 54rem) { .try { grid-template-columns: 1fr } #answer { min-height: 0 } }
"""
_SCRIPT = """
const $ = id => document.getElementById(id)
const add = (parent, tag, text, kind = '') => {
  const made = document.createElement(tag); made.textContent = text; made.className = kind; parent.append(made)
  return made
}
const percent = p => (100 * p).toFixed(1) + ' %'
const rule = s => (s.anyOf || [s]).map(p => p.enum ? p.enum.join(', ') : p.const !== undefined ? p.const
  : p.$ref ? p.$ref.split('/').pop() : p.type === 'array' ? 'list'
  : p.type === 'integer' || p.type === 'number'
    ? (p.type === 'integer' ? 'whole number' : 'number') + (p.minimum === undefined ? '' : ` from ${p.minimum}`)
      + (p.maximum > 2 ** 53 || p.maximum === undefined ? '' : ` to ${p.maximum}`)
  : p.maxLength ? `text of at most ${p.maxLength} characters`
  : {string: 'text', boolean: 'true or false'}[p.type] || p.type).join(', or ')
const example = s => s.examples && s.examples[0] !== null ? JSON.stringify(s.examples[0]) : ''

fetch('openapi.json').then(r => r.json()).then(doc => {
  const schemas = doc.components.schemas, encounter = schemas.Encounter
  $('text').textContent = doc.info.description
  $('body').value = JSON.stringify(doc.paths['/predict'].post.requestBody.content['application/json'].example, null, 1)
  for (const [name, field] of Object.entries(encounter.properties)) {
    const row = $('fields').insertRow()
    for (const text of [name, encounter.required.includes(name) ? 'yes' : 'no', field.description, rule(field),
      example(field)]) add(row, 'td', text)
  }
  for (const name of ['Prediction', 'Explanation', 'Contribution', 'ValidationError', 'Problem', 'Error']) {
    add($('answers'), 'h3', name); add($('answers'), 'p', schemas[name].description.replaceAll('`', ''), 'soft')
    const table = add(add($('answers'), 'div', '', 'scroll'), 'table', ''), head = table.createTHead().insertRow()
    for (const title of ['Field', 'Meaning', 'Values', 'Example']) add(head, 'th', title)
    const rows = table.createTBody()
    for (const [field, found] of Object.entries(schemas[name].properties)) {
      const row = rows.insertRow()
      for (const text of [field, found.description, rule(found), example(found)]) add(row, 'td', text)
    }
  }
})
fetch('health').then(r => r.json()).then(health => {
  $('model').textContent = health.status === 'ok'
    ? `Ready. Answers come from ${health.model_name || 'a model'}, version ${health.model_version}.`
    : `Not ready: ${health.reason || health.status}.`
  if (health.synthetic) $('invented').hidden = false
  if (health.simulation) $('simulated').hidden = false
})

const show = {
  predict(box, a) {
    add(box, 'p', 'Risk of readmission within 30 days', 'soft')
    add(box, 'p', percent(a.probability_score), 'big')
    add(box, 'p', `Risk band: ${a.risk_band}. As high as or higher than ${a.percentile} % of the reference cohort.`)
    add(box, 'p', a.prediction ? `Reaches the threshold of ${percent(a.threshold)}.`
      : `Below the threshold of ${percent(a.threshold)}.`)
  },
  explain(box, a) {
    add(box, 'p', `Risk ${percent(a.probability_score)}; a typical patient has ${percent(a.reference_probability)}. `
      + 'The difference, by factor, in percentage points:')
    const table = add(box, 'table', '')
    const small = a.contributions.filter(one => Math.abs(one.contribution) < 0.0005)
    for (const one of a.contributions.filter(one => !small.includes(one))) {
      const row = table.insertRow(), points = (100 * one.contribution).toFixed(1)
      add(row, 'td', one.factor); add(row, 'td', one.contribution > 0 ? '+' + points : points, 'number')
    }
    if (small.length) add(box, 'p', `Each of the ${small.length} other factors makes less than 0.05.`, 'soft')
  },
}
const ask = path => async () => {
  const headers = {'content-type': 'application/json'}, box = $('answer')
  if ($('key').value) headers['x-api-key'] = $('key').value
  let response, answer
  try {
    response = await fetch(path, {method: 'POST', headers, body: $('body').value})
    answer = await response.json()
  } catch { box.replaceChildren('The service does not answer.'); return }
  box.replaceChildren()
  if (response.ok) {
    show[path](box, answer)
    if (answer.unknown_fields.length)
      add(box, 'p', `Not known to the model: ${answer.unknown_fields.join(', ')}.`, 'notice')
    if (answer.missing_fields.length)
      add(box, 'p', `Not given: ${answer.missing_fields.join(', ')}.`, 'soft')
    for (const warning of answer.warnings || []) add(box, 'p', `${warning}.`, 'notice')
    if (answer.outside_cohort)
      add(box, 'p', 'The patient died or went to hospice: the model was not made for this.', 'notice')
  } else {
    add(box, 'p', `Not answered (${response.status}).`, 'notice')
    for (const problem of [answer.detail].flat())
      add(box, 'p', problem.msg ? `${problem.loc.slice(1).join(' ') || 'The request'} ${problem.msg}` : problem)
  }
  const more = add(box, 'details', '')
  add(more, 'summary', 'As JSON'); add(more, 'pre', JSON.stringify(answer, null, 1))
}
$('predict').onclick = ask('predict'); $('explain').onclick = ask('explain')
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Health Predict</title><style>{_STYLE}</style></head><body>
<header><div class="inside"><h1>Health Predict</h1><p id="text"></p></div></header>
<main class="inside">
<p id="model" role="status"></p>
<p class="notice" id="invented" hidden>This model was trained on invented data. Do not use it for patients.</p>
<p class="notice" id="simulated" hidden>This model belongs to a simulation. Do not use it for patients.</p>
<h2>Try a prediction</h2>
<p><label>API key, if one is needed: <input id="key" type="password" autocomplete="off"></label></p>
<div class="try"><div><textarea id="body" aria-label="Encounter as JSON" spellcheck="false"></textarea>
<button class="first" id="predict">Predict</button><button id="explain">Explain</button></div>
<div id="answer" role="status"><p class="soft">The answer comes here. The patient in the example is invented.</p></div>
</div>
<h2>Fields of an encounter</h2>
<div class="scroll"><table><thead><tr><th>Field<th>Required<th>Meaning<th>Values<th>Example</tr></thead>
<tbody id="fields"></tbody></table></div>
<h2>Fields of an answer</h2>
<div id="answers"></div>
<footer>For programs: <a href="openapi.json">openapi.json</a>. A risk supports a clinician's judgement and does not
replace it; this is not a medical device.</footer>
</main>
<script>{_SCRIPT}</script></body></html>
"""
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; connect-src 'self'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
