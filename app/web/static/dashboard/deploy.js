// The model a job made: deploy it, watch it come up, talk to it, take it down.
import { mayChange } from './actions.js';
import { Chat } from './chat.js';
import { copyButton, h, put, set } from './dom.js';
import { DEPLOYMENT_CHANGES, DEPLOYMENT_FIELDS } from './documents.js';
import * as format from './format.js';
import { isElsewhere, placeName } from './places.js';

const SAYS = {
  PENDING: 'Waiting for a worker …', STARTING: 'Loading the model …', READY: 'Ready to be called.',
  STOPPED: 'Not deployed.', FAILED: 'It could not be brought up.',
};
const SAYS_ELSEWHERE = { PENDING: 'About to be asked for …', STARTING: 'It is being brought up …' };
const ENDED = ['STOPPED', 'FAILED'];

export class Deploy {
  #session; #viewer; #job = null; #deployment = null; #feed = null; #chat = null; #heard = new Set();

  constructor(session, viewer) {
    this.#session = session;
    this.#viewer = viewer;
    this.name = h('code', { class: 'model-name' });
    this.kind = h('p', { class: 'hint' });
    this.state = h('span', { class: 'badge' });
    this.says = h('span', { role: 'status' });
    this.button = h('button', { type: 'button', class: 'lt-button', onclick: () => this.#press() });
    this.refusal = h('p', { class: 'warning error', role: 'alert', hidden: true });
    this.chat = h('div');
    this.element = h('section', { class: 'card deploy', hidden: true, 'aria-label': 'Model' },
      h('header', {}, h('h2', {}, 'Model'), this.state, this.says, this.button),
      h('p', {}, this.name, copyButton(() => this.#job.model.name)), this.kind, this.refusal, this.chat);
  }

  close() {
    this.#feed?.stop();
    this.#chat?.close();
  }

  // `ledger` is a position from before the job was read.
  draw(job, ledger) {
    this.#job = job;
    this.element.hidden = !job.model;
    if (!job.model) return;
    const { id, name, kind, sizeBytes, deployments } = job.model;
    put(this.name, name);
    put(this.kind, isElsewhere(job) ? `Its weights are at ${placeName(job.provider)}; tuned from ${job.baseModel}`
      : `${kind === 'lora' ? 'LoRA adapter' : 'Full weights'}, ${format.bytes(sizeBytes)}, tuned from ${job.baseModel}`);
    if (this.#feed) return; // from here on the feed knows better than any answer
    const live = deployments.find(({ status }) => !ENDED.includes(status));
    this.#show(live ?? deployments[0] ?? null);
    this.#feed = this.#session.live.subscribe(DEPLOYMENT_CHANGES, { modelId: id, after: ledger }, {
      next: ({ deployment }) => this.#hear(deployment),
      error: (message) => this.#refuse(message),
    });
  }

  #hear(deployment) {
    const other = deployment && this.#deployment && deployment.id !== this.#deployment.id;
    if (!deployment || (other && deployment.createdAt < this.#deployment.createdAt)) return;
    this.#heard.add(deployment.id);
    this.#show(deployment);
  }

  #show(deployment) {
    this.#deployment = deployment;
    const status = deployment?.status ?? 'STOPPED';
    const leaving = deployment?.requestedAction === 'UNDEPLOY' && !ENDED.includes(status);
    this.state.hidden = !deployment || status === 'STOPPED';
    put(this.state, format.words(status));
    set(this.state, 'class', `badge ${format.words(status)}`);
    put(this.says, leaving ? 'Being taken down …' : deployment?.error?.message
      ?? (isElsewhere(this.#job) ? SAYS_ELSEWHERE[status] : null) ?? SAYS[status]);
    const down = ENDED.includes(status);
    this.button.hidden = !mayChange(this.#viewer());
    this.button.disabled = leaving;
    put(this.button, down ? 'Deploy' : 'Take down');
    set(this.button, 'class', down ? 'lt-button lt-primary' : 'lt-button');
    this.#offerChat(status === 'READY' && !leaving);
  }

  #offerChat(ready) {
    if (ready && !this.#chat) {
      this.#chat = new Chat(this.#session, this.#job);
      this.chat.replaceChildren(this.#chat.element);
    }
    this.#chat?.setReady(ready);
  }

  #refuse(message) {
    put(this.refusal, message ?? '');
    this.refusal.hidden = !message;
  }

  async #press() {
    const [verb, input] = this.#deployment && !ENDED.includes(this.#deployment.status)
      ? ['undeployModel', { deploymentId: this.#deployment.id }]
      : ['deployModel', { modelId: this.#job.model.id }];
    this.#refuse(null);
    this.button.disabled = true;
    try {
      const { deployment } = await this.#session.change(verb, input, DEPLOYMENT_FIELDS);
      // The feed may have overtaken this answer; only the wish is news then.
      const { requestedAction } = deployment;
      this.#show(this.#heard.has(deployment.id)
        ? { ...this.#deployment, requestedAction } : deployment);
    } catch (error) {
      this.#refuse(error.message);
      this.button.disabled = false;
    }
  }
}
