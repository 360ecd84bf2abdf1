// The facts about a job: settings, data, checkpoints, attempts.
import { copyButton, h } from './dom.js';
import * as format from './format.js';
import { isElsewhere, placeName } from './places.js';

const panel = (title, ...children) =>
  h('section', { class: 'card panel' }, h('header', {}, h('h2', {}, title)), ...children);

export const facts = (pairs) => h('dl', { class: 'facts' }, pairs.map(([name, ...value]) =>
  h('div', {}, h('dt', {}, name), h('dd', {}, ...value))));

export const table = (head, rows) => h('div', { class: 'scroll', tabindex: 0 }, h('table', {},
  h('thead', {}, h('tr', {}, head.map((text) => h('th', { scope: 'col' }, text)))),
  h('tbody', {}, rows.map((cells) => h('tr', {}, cells.map((cell) => h('td', {}, cell)))))));

const text = (value) => (value !== null && typeof value === 'object'
  ? JSON.stringify(value) : String(value));

function settings(job) {
  const resolved = job.resolvedHyperparameters ?? {};
  const names = [...new Set([...Object.keys(job.hyperparameters), ...Object.keys(resolved)])];
  const rows = names.map((name) => {
    const asked = job.hyperparameters[name];
    const became = resolved[name] ?? asked;
    const auto = (asked === undefined || asked === 'auto') && became !== 'auto';
    return [format.words(name), text(became), auto ? h('small', {}, 'auto') : null];
  });
  return panel('Hyperparameters', facts(rows), job.resolvedHyperparameters
    ? null : h('p', { class: 'hint' }, 'What is “auto” is settled when training starts.'));
}

function version(title, data) {
  const { report } = data;
  return [
    h('h3', {}, title),
    facts([
      ['dataset', data.dataset.name, h('small', {}, `version ${data.number}`)],
      ['cases', format.count(data.caseCount)],
      ['tokens per epoch', format.count(report.tokenCount)],
      ['longest case', `${format.count(report.longestCaseTokens)} tokens`],
    ]),
    ...report.warnings.map((warning) => h('p', { class: 'warning' }, warning)),
  ];
}

// A job that was imported has its data at its provider only.
const data = (job) => panel('Data', ...(job.trainingData ? version('Training', job.trainingData)
  : [h('p', { class: 'hint' }, `The job was imported: its data is at ${placeName(job.provider)} only.`)]),
  ...(job.validationData ? version('Validation', job.validationData)
    : job.trainingData ? [h('p', { class: 'hint' }, 'No validation data: only the training loss is measured.')] : []),
  ...(job.evaluation ? version('Held out for graders', job.evaluation.data) : []));

function checkpoints(job) {
  const { nodes } = job.checkpoints;
  if (!nodes.length) return panel('Checkpoints', h('p', { class: 'hint' }, 'None yet.'));
  const scored = job.evaluation || nodes.some((one) => one.score !== null);
  const head = ['Step', 'Training', 'Validation', ...(scored ? ['Score'] : []), 'Size', 'Saved'];
  return panel('Checkpoints', table(head, nodes.map((one) => [
    format.count(one.step), format.loss(one.metrics.trainingLoss),
    format.loss(one.metrics.validationLoss), ...(scored ? [format.loss(one.score)] : []),
    isElsewhere(job) ? '–' : format.bytes(one.sizeBytes), format.clock(one.createdAt),
  ])));
}

function attempts(job) {
  return panel('Attempts', table(['#', 'From step', 'Outcome', 'Took'], job.attempts.map((one) => {
    const end = one.finishedAt ? new Date(one.finishedAt) : Date.now();
    return [
      String(one.number), one.fromStep === null ? '–' : format.count(one.fromStep),
      one.outcome ?? (one.startedAt ? 'under way' : 'queued'),
      one.startedAt ? format.duration((end - new Date(one.startedAt)) / 1_000) : '–',
    ];
  })));
}

function about(job) {
  const pairs = [
    ['id', h('code', {}, job.id), copyButton(() => job.id)],
    ['method', job.method],
    ['seed', job.seed],
    ['submitted', format.full(job.createdAt)],
  ];
  if (job.hardware) pairs.push(['hardware', job.hardware]);
  if (job.trainedTokens) pairs.push(['tokens trained', format.count(job.trainedTokens)]);
  if (job.cost !== null) pairs.push(['cost', format.money(job.cost)]);
  else if (job.estimatedCost) pairs.push(['estimated cost', format.money(job.estimatedCost)]);
  for (const [key, value] of Object.entries(job.metadata)) pairs.push([key, String(value)]);
  for (const file of job.resultFiles) pairs.push(['result', `${file.filename}, ${format.bytes(file.sizeBytes)}`]);
  return panel('Job', facts(pairs));
}

// What grows while a job runs, and what was settled before.
export const course = (job) => [checkpoints(job), attempts(job)];
export const given = (job) => [settings(job), data(job), about(job)];
