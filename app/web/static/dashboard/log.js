// The events of a job, newest at the bottom; it follows them unless one has scrolled up.
import { h, put } from './dom.js';
import * as format from './format.js';

const NEAR = 24; // pixels from the end that still count as being there

export class EventLog {
  #seen = new Set(); #unread = 0;

  constructor() {
    this.list = h('ol', { role: 'log', 'aria-label': 'Events', tabindex: 0 });
    this.jump = h('button', {
      type: 'button', class: 'lt-button jump', hidden: true, onclick: () => this.toEnd(),
    });
    this.nothing = h('p', { class: 'nothing' }, 'Nothing yet.');
    this.element = h('section', { class: 'card log' },
      h('header', {}, h('h2', {}, 'Events')), this.nothing, this.list, this.jump);
    this.list.addEventListener('scroll', () => { if (this.#atEnd()) this.#read(); });
  }

  add(events) {
    const fresh = events.filter(({ id }) => !this.#seen.has(id));
    if (!fresh.length) return;
    const follow = this.#atEnd();
    for (const event of fresh) this.#seen.add(event.id);
    this.list.append(...fresh.map(line));
    this.nothing.hidden = true;
    if (follow) this.toEnd();
    else this.#announce(fresh.length);
  }

  #atEnd() {
    const { scrollTop, clientHeight, scrollHeight } = this.list;
    return scrollHeight - clientHeight - scrollTop < NEAR;
  }

  #announce(more) {
    this.#unread += more;
    this.jump.hidden = false;
    put(this.jump, `${format.plural(this.#unread, 'new event')} ↓`);
  }

  #read() {
    this.#unread = 0;
    this.jump.hidden = true;
  }

  toEnd() {
    this.list.scrollTop = this.list.scrollHeight;
    this.#read();
  }
}

function line({ type, level, message, at, data }) {
  const theirs = data?.source === 'provider';
  return h('li', { class: format.words(level), 'data-type': type },
    h('time', { datetime: at, title: format.full(at) }, format.clock(at)),
    theirs ? h('span', { class: 'kind theirs', title: 'In the provider’s own words' }, 'provider')
      : h('span', { class: 'kind' }, format.words(type)),
    h('span', { class: 'message' }, message));
}
