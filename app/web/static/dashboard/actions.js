// What may be asked of a job now, and what came of it, in words.
import { h, keyed, put } from './dom.js';
import { isOver } from './store.js';

const FIELDS = 'job { id status requestedAction }';
const PENDING = {
  PAUSE: 'Pausing: the worker saves a checkpoint first.',
  RESUME: 'It goes on as soon as it has paused.',
  CANCEL: 'Cancelling: the worker is being told.',
};

export const mayChange = (viewer) =>
  viewer?.role !== 'MEMBER' && viewer?.scopes.includes('FINE_TUNING_WRITE');

function allowed({ status, requestedAction }) {
  const over = isOver({ status });
  return [
    !over && status !== 'PAUSED' && !requestedAction && 'pauseJob',
    (status === 'PAUSED' || requestedAction === 'PAUSE') && 'resumeJob',
    !over && requestedAction !== 'CANCEL' && 'cancelJob',
    (status === 'FAILED' || status === 'CANCELLED') && 'restartJob',
  ].filter(Boolean);
}

export class Actions {
  #session; #viewer; #changed; #job = null; #busy = null;

  constructor(session, viewer, changed) {
    this.#session = session;
    this.#viewer = viewer;
    this.#changed = changed;
    this.buttons = h('div', { class: 'buttons' });
    this.pending = h('p', { class: 'asked', role: 'status' });
    this.refusal = h('p', { class: 'warning error', role: 'alert', hidden: true });
    this.element = h('div', { class: 'actions' }, this.buttons, this.pending, this.refusal);
  }

  draw(job) {
    this.#job = job;
    const verbs = mayChange(this.#viewer()) ? allowed(job) : [];
    keyed(this.buttons, verbs, (verb) => verb, (verb) => h('button', {
      type: 'button', class: 'lt-button', onclick: () => this.#ask(verb),
    }, label(verb)), (button) => { button.disabled = this.#busy !== null; });
    put(this.pending, PENDING[job.requestedAction] ?? '');
  }

  async #ask(verb) {
    const input = { id: this.#job.id };
    if (verb === 'cancelJob' && !(await confirm({
      title: 'Cancel this job?', act: 'Cancel the job', back: 'Keep it',
      text: 'Training stops. Its checkpoints stay: it can be restarted from the newest one.',
    }))) return;
    if (verb === 'restartJob') {
      const answer = await confirm({
        title: 'Restart this job?', act: 'Restart', back: 'Not now', option: 'From scratch: forget its checkpoints',
        text: 'It is queued again and goes on from its newest checkpoint.',
      });
      if (!answer) return;
      input.fromScratch = answer.option;
    }
    await this.#run(verb, input);
  }

  async #run(verb, input) {
    this.#busy = verb;
    this.refusal.hidden = true;
    this.draw(this.#job);
    try {
      const { job } = await this.#session.change(verb, input, FIELDS);
      this.#job = { ...this.#job, ...job };
    } catch (error) {
      put(this.refusal, error.message);
      this.refusal.hidden = false;
    }
    this.#busy = null;
    this.draw(this.#job);
    this.#changed();
  }
}

const label = (verb) => `${verb[0].toUpperCase()}${verb.slice(1, -3)}`;

// A dialog of the browser's own: it keeps the focus inside and closes on Escape.
function confirm({ title, text, act, back, option }) {
  return new Promise((done) => {
    const box = option && h('input', { type: 'checkbox' });
    const dialog = h('dialog', { 'aria-label': title },
      h('form', { method: 'dialog' }, h('h2', {}, title), h('p', {}, text),
        box ? h('label', {}, box, ` ${option}`) : null,
        h('div', { class: 'buttons' },
          h('button', { class: 'lt-button', value: '' }, back),
          h('button', { class: 'lt-button lt-primary', value: 'yes' }, act))));
    dialog.addEventListener('close', () => {
      dialog.remove();
      done(dialog.returnValue === 'yes' ? { option: box?.checked ?? false } : null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
