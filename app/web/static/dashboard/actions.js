// What may be asked of a job now, and what came of it, in words.
import { h, keyed, put, set } from './dom.js';
import { isElsewhere, placeName } from './places.js';
import { isOver } from './store.js';

const FIELDS = 'job { id status requestedAction }';
const PENDING = {
  PAUSE: 'Pausing: the worker saves a checkpoint first.',
  RESUME: 'It goes on as soon as it has paused.',
  CANCEL: 'Cancelling: the worker is being told.',
};
const PENDING_ELSEWHERE = { PAUSE: 'Pausing', RESUME: 'Resuming', CANCEL: 'Cancelling' };

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

function pending(job) {
  const { requestedAction, provider } = job;
  if (!requestedAction) return '';
  return isElsewhere(job)
    ? `${PENDING_ELSEWHERE[requestedAction]}: ${placeName(provider)} is being told.` : PENDING[requestedAction];
}

// Why a provider will not do it. Before a job is there, it is in our own hands.
function impossible(verb, job, place) {
  if (!place || !isElsewhere(job) || !job.providerJobId) return null;
  const able = { pauseJob: place.canPause, resumeJob: place.canResume }[verb] ?? true;
  return able ? null : `${place.name} cannot ${label(verb).toLowerCase()} jobs.`;
}

export class Actions {
  #session; #viewer; #place; #changed; #job = null; #busy = null;

  // `place` says what can be done at a provider.
  constructor(session, viewer, place, changed) {
    this.#session = session;
    this.#viewer = viewer;
    this.#place = place;
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
    }, label(verb)), (button, verb) => {
      const why = impossible(verb, job, this.#place(job.provider));
      button.disabled = this.#busy !== null || why !== null;
      set(button, 'title', why);
    });
    // Again in plain sight: a title is shown to those with a mouse only.
    const refused = verbs.map((verb) => impossible(verb, job, this.#place(job.provider))).find(Boolean);
    put(this.pending, pending(job) || (refused ?? ''));
  }

  async #ask(verb) {
    const input = { id: this.#job.id };
    const elsewhere = isElsewhere(this.#job);
    const there = placeName(this.#job.provider);
    if (verb === 'cancelJob' && !(await confirm({
      title: 'Cancel this job?', act: 'Cancel the job', back: 'Keep it',
      text: elsewhere ? `${there} is told to stop. A restart makes a new job there, from the beginning.`
        : 'Training stops. Its checkpoints stay: it can be restarted from the newest one.',
    }))) return;
    if (verb === 'restartJob') {
      const answer = await confirm({
        title: 'Restart this job?', act: 'Restart', back: 'Not now',
        option: elsewhere ? null : 'From scratch: forget its checkpoints',
        text: elsewhere ? `A new job is made at ${there}, of the same data; it begins at the beginning.`
          : 'It is queued again and goes on from its newest checkpoint.',
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
