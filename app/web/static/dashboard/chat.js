// One question, two answers: the tuned model's and the base model's, as they are written.
import { h, put } from './dom.js';

const LONGEST = 200; // tokens of an answer
const PEEK = 16_384; // bytes of the data file that are read for an example

export class Chat {
  #session; #job; #abort = new AbortController(); #examples = null; #next = 0; #right = null;

  constructor(session, job) {
    this.#session = session;
    this.#job = job;
    this.both = job.model.kind === 'lora'; // only an adapter has its base model loaded beside it
    this.system = h('textarea', { id: 'chat-system', rows: 2 });
    this.question = h('textarea', { id: 'chat-question', rows: 2, placeholder: 'Ask …' });
    this.send = h('button', { type: 'submit', class: 'lt-button lt-primary' },
      this.both ? 'Ask both' : 'Ask');
    this.example = h('button', {
      type: 'button', class: 'lt-button', onclick: () => this.#takeExample(),
    }, 'Take a case from the data');
    this.example.hidden = !job.trainingData; // of an imported job it is not here
    this.answers = h('div', { class: 'exchanges' });
    const ask = (event) => { event.preventDefault(); this.#ask(); };
    this.form = h('form', { class: 'chat', onsubmit: ask },
      h('label', { for: 'chat-system' }, 'System prompt (may be empty)'), this.system,
      h('label', { for: 'chat-question' }, 'Question'), this.question,
      h('div', { class: 'buttons' }, this.send, this.example,
        h('span', { class: 'hint' }, this.both ? 'Each question stands alone; answers are greedy.'
          : job.model.kind === 'provider' ? 'Only the tuned model is asked here.'
            : 'The base model can be asked beside a LoRA adapter only; these are full weights.')));
    this.question.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) ask(event);
    });
    this.question.addEventListener('input', () => { this.#right = null; });
    this.element = h('div', {}, this.form, this.answers);
  }

  close() { this.#abort.abort(); }

  setReady(ready) { this.form.hidden = !ready; }

  async #ask() {
    const question = this.question.value.trim();
    if (!question || this.send.disabled) return;
    const system = this.system.value.trim();
    const messages = [{ role: 'user', content: question }];
    if (system) messages.unshift({ role: 'system', content: system });
    const asked = [[this.#job.model.name, answer('Tuned')]];
    if (this.both) asked.push([this.#job.baseModel, answer('Base')]);
    const right = this.#right && h('p', { class: 'hint' }, 'In the data: ', h('code', {}, this.#right));
    this.answers.prepend(h('article', { class: 'exchange' },
      h('p', { class: 'question' }, question), right, h('div', { class: 'answers' }, asked.map(([, box]) => box))));
    this.send.disabled = true;
    await Promise.all(asked.map(([model, box]) => this.#stream(model, messages, box.lastChild)));
    this.send.disabled = false;
  }

  async #stream(model, messages, into) {
    try {
      const body = { model, messages, stream: true, temperature: 0, max_tokens: LONGEST };
      const signal = this.#abort.signal;
      const response = await this.#session.fetch('/v1/chat/completions', body, { signal });
      if (!response.ok) {
        const refused = await response.json().catch(() => null);
        throw new Error(refused?.error?.message ?? `HTTP ${response.status}`);
      }
      for await (const piece of pieces(response)) into.append(piece);
      if (!into.textContent.trim()) put(into, '(nothing but white space)');
    } catch (error) {
      if (error.name !== 'AbortError') into.append(h('em', {}, error.message));
    }
    into.removeAttribute('aria-busy');
  }

  async #takeExample() {
    this.#examples ??= await this.#load();
    if (!this.#examples.length) return;
    const { system, question, right } = this.#examples[this.#next++ % this.#examples.length];
    this.system.value = system;
    this.question.value = question;
    this.#right = right;
    this.question.focus();
  }

  // The first cases of the validation data, which the model has not been trained on.
  async #load() {
    const { id } = (this.#job.validationData ?? this.#job.trainingData).file;
    const response = await this.#session.fetch(`/v1/files/${id}/content`, null, {
      headers: { Range: `bytes=0-${PEEK - 1}` },
    });
    if (!response.ok) return [];
    const text = await response.text();
    const cut = response.status === 206 && text.length >= PEEK - 4;
    const lines = text.split('\n').slice(0, cut ? -1 : undefined).filter((line) => line.trim());
    return lines.flatMap((line) => {
      try {
        const { messages } = JSON.parse(line);
        const said = (role) => messages.find((one) => one.role === role)?.content ?? '';
        return [{ system: said('system'), question: said('user'), right: said('assistant') }];
      } catch {
        return [];
      }
    });
  }
}

const answer = (who) => h('div', { class: 'answer' },
  h('h3', {}, who), h('pre', { 'aria-busy': 'true', 'aria-live': 'polite', 'aria-label': `${who} model's answer` }));

// The text of a stream of server-sent events, as OpenAI's protocol sends it.
async function* pieces(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      const data = line.startsWith('data:') ? line.slice(5).trim() : '';
      if (data === '[DONE]') return;
      if (!data) continue;
      const message = JSON.parse(data);
      if (message.error) throw new Error(message.error.message);
      const text = message.choices?.[0]?.delta?.content;
      if (text) yield text;
    }
  }
}
