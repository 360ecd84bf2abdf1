// What a newcomer sees: how to submit the first job.
import { copyButton, h } from './dom.js';

// On its own machine and port the command finds the server and the key by itself.
const elsewhere = (root) => [
  `export LUTHIER_URL=${location.origin}${root}`, 'export LUTHIER_API_KEY=lt_…  # your key',
];

const lines = (root) => [
  ...(location.port === '8000' && /^(localhost|127\.)/.test(location.host) ? [] : elsewhere(root)),
  '.venv/bin/luthier jobs submit --base-model smollm2-135m-instruct \\',
  '  --data app/cli/demo_data/tickets.train.jsonl \\',
  '  --validation app/cli/demo_data/tickets.validation.jsonl --name "My first job"',
].join('\n');

export function empty(root) {
  const command = lines(root);
  return h('div', { class: 'card empty', hidden: true },
    h('h1', {}, 'No jobs yet'),
    h('p', {}, 'Submit the first one from a terminal in Luthier’s folder. It tunes a small chat '
      + 'model that comes with Luthier to route support tickets, and appears here at once.'),
    h('div', { class: 'command' }, h('pre', {}, h('code', {}, command)), copyButton(() => command)),
    h('p', {}, 'Or in the browser: open ', h('a', { href: `${root}/graphql` }, 'GraphiQL'),
      ' and run its example “Submit a job”. Where else jobs can be tuned is told by ',
      h('a', { href: '#/providers' }, 'Providers'), '.'));
}
