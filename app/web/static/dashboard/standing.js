// Where a job is, what its provider says of it, and what it waits for: lines near the status.
import { copyButton, h, put, set } from './dom.js';
import * as format from './format.js';
import { isElsewhere, placeName } from './places.js';
import { isOver } from './store.js';

export class Standing {
  #job = null;

  constructor() {
    this.place = h('a', { class: 'where', href: '#/providers' });
    this.id = h('code');
    this.there = h('span', { class: 'there' }, 'as ', this.id, copyButton(() => this.#job.providerJobId));
    this.word = h('q');
    this.says = h('span', {}, 'says ', this.word);
    this.heard = h('span');
    this.line = h('p', { class: 'standing' }, this.place, this.there, this.says, this.heard);
    this.why = h('p', { class: 'why', role: 'status' });
    this.element = h('div', { class: 'whereabouts' }, this.line, this.why);
  }

  draw(job) {
    this.#job = job;
    const { providerJobId, providerStatus, lastEvidence } = job;
    const elsewhere = isElsewhere(job);
    this.line.hidden = !elsewhere;
    put(this.place, placeName(job.provider));
    this.there.hidden = !providerJobId;
    put(this.id, providerJobId ?? '');
    this.says.hidden = !providerStatus;
    put(this.word, providerStatus ?? '');
    // Of a job that is over there is nothing more to hear.
    this.heard.hidden = isOver(job) || !lastEvidence;
    if (lastEvidence) {
      put(this.heard, `last heard ${format.ago(lastEvidence.at)} by ${lastEvidence.source}`);
      set(this.heard, 'title', format.full(lastEvidence.at));
    }
    put(this.why, isOver(job) ? '' : (elsewhere ? job.queueReason : hereWhy(job)) ?? '');
    set(this.why, 'class', isTroubled(job) ? 'why troubled' : 'why');
  }
}

// What is queued has to wait; what is running or paused gives a reason only when something is wrong.
const isTroubled = ({ isStale, status, queueReason }) =>
  isStale || ((status === 'RUNNING' || status === 'PAUSED') && Boolean(queueReason));

function hereWhy(job) {
  if (job.status !== 'RUNNING') return job.queueReason;
  const newest = job.attempts.at(-1);
  if (newest && !newest.startedAt) return 'Waiting for a worker to go on with it.';
  return job.isStale
    ? 'The worker has been silent for a while; another one takes the job up by itself.' : job.queueReason;
}
