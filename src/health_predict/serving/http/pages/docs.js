const $ = id => document.getElementById(id)
const add = (parent, tag, text, kind = '') => {
  const made = document.createElement(tag); made.textContent = text; made.className = kind; parent.append(made)
  return made
}
const percent = p => `${(100 * p).toFixed(1)} %`
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
    add(box, 'p', a.prediction ? `Flagged: reaches the threshold of ${percent(a.threshold)}.`
      : `Not flagged: below the threshold of ${percent(a.threshold)}.`)
  },
  explain(box, a) {
    const changed = a.reference_changed
    add(box, 'p', `Risk ${percent(a.probability_score)}; the reference patient has ${percent(a.reference_probability)}. `
      + 'The difference, by factor, in percentage points:')
    add(box, 'p', 'The reference patient is a patient at the median risk of the reference cohort: typical values'
      + (changed.length ? `, of which ${changed.length} (${changed.join(', ')}) `
        + `${changed.length > 1 ? 'were' : 'was'} changed so that the risk is the median, or as near to it as they bring it.` : '.'), 'soft')
    const table = add(box, 'table', '')
    const small = a.contributions.filter(one => Math.abs(one.contribution) < 0.0005)
    for (const one of a.contributions.filter(one => !small.includes(one))) {
      const row = table.insertRow(), points = (100 * one.contribution).toFixed(1)
      add(row, 'td', one.factor); add(row, 'td', one.contribution > 0 ? `+${points}` : points, 'number')
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
