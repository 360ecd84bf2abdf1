// The top bar: as GraphiQL's, with the state of the stream and of the key.
import { h, put, set, svg } from './dom.js';
import { maskKey } from './key.js';

const KEY = {
  accepted: ['lt-ok', 'Key accepted'], refused: ['lt-bad', 'Key refused'],
  unchecked: ['lt-idle', 'Key'], none: ['lt-none', 'No key'],
};

const mark = () => svg('svg', { class: 'lt-mark', viewBox: '0 0 24 24', 'aria-hidden': 'true' },
  svg('path', { d: 'M15.2 6.4C13.6 3.4 10 4.8 10.6 8.2c.6 3.3 3 4.3 3 7.4 0 3.5-3.6 4.8-5 1.9' }),
  svg('path', { d: 'M9.8 12.9l4.5-1.6' }),
  svg('circle', { cx: 15.2, cy: 6.9, r: 1.7 }), svg('circle', { cx: 8.7, cy: 17.1, r: 1.7 }));

export class Header {
  constructor({ root, onKey, onForget }) {
    this.stream = h('span', { class: 'lt-stream', role: 'status', hidden: true }, h('i'), h('span'));
    this.where = h('span', { class: 'lt-org' });
    this.verdict = h('span');
    this.masked = h('code');
    this.forget = h('button', {
      type: 'button', title: 'Remove the key from this tab', onclick: onForget,
    }, 'Forget');
    this.key = h('span', { class: 'lt-key', role: 'status' },
      h('i'), this.verdict, this.masked, this.forget);
    this.providers = h('a', { class: 'lt-link', href: '#/providers' }, 'Providers');
    this.element = h('header', { class: 'lt-header' },
      h('a', { class: 'lt-brand', href: '#/' }, mark(), 'Luthier'),
      h('span', { class: 'lt-where' }, 'Dashboard'), this.providers,
      h('a', { class: 'lt-link', href: `${root}/graphql` }, 'GraphiQL'),
      h('span', { class: 'lt-space' }), this.where, this.stream, this.key);
    this.bar = this.#keyBar(onKey);
  }

  setStream(state) {
    this.stream.hidden = !state;
    set(this.stream, 'class', `lt-stream lt-${state}`);
    put(this.stream.lastChild, state ?? '');
  }

  setView(view) { set(this.providers, 'aria-current', view === 'providers' && 'page'); }

  setOrganization(viewer) {
    put(this.where, viewer ? `${viewer.organization.name} / ${viewer.project.name}` : '');
  }

  setKey(key, verdict) {
    const [kind, label] = KEY[key ? verdict : 'none'];
    set(this.key, 'class', `lt-key ${kind}`);
    set(this.key, 'data-verdict', key ? verdict : 'none');
    put(this.verdict, label);
    put(this.masked, key ? maskKey(key) : '');
    this.masked.hidden = this.forget.hidden = !key;
    const ask = !key || verdict === 'refused';
    if (ask && this.bar.hidden) this.input.value = '';
    this.bar.hidden = !ask;
    set(this.bar, 'class', verdict === 'refused' && key ? 'lt-bar lt-refused' : 'lt-bar');
    put(this.asking, verdict === 'refused' && key
      ? 'The server did not accept this key.' : 'Paste an API key to begin.');
  }

  #keyBar(onKey) {
    this.asking = h('strong');
    this.input = h('input', {
      id: 'lt-key-input', type: 'password', autocomplete: 'off', spellcheck: 'false',
      placeholder: 'lt_…',
    });
    const submit = (event) => {
      event.preventDefault();
      const given = this.input.value.trim();
      this.input.value = '';
      if (given) onKey(given);
    };
    return h('form', { class: 'lt-bar', hidden: true, onsubmit: submit },
      h('label', { for: 'lt-key-input' }, this.asking,
        ' The first one is in ', h('code', {}, '<data dir>/owner-key'), ' (the data dir is ',
        h('code', {}, '.luthier'), ' unless you changed it); ', h('code', {}, 'luthier keys'),
        ' makes more. It stays in this browser tab.'),
      this.input, h('button', { type: 'submit', class: 'lt-button lt-primary' }, 'Use key'));
  }
}
