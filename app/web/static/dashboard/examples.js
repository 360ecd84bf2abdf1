// The cases that the finished model knows least, with their lines in the file.
import { h, put } from './dom.js';
import * as docs from './documents.js';
import * as format from './format.js';
import { table } from './panels.js';

const WORDS = {
  DUPLICATE: (one) => `duplicate of line ${one.duplicateOf}`,
  IN_BOTH: (one) => `also in ${one.split === 'TRAINING' ? 'validation' : 'training'}, line ${one.sameInOther}`,
  CONTRADICTS: (one) => `contradicts line ${one.contradicts}`,
};

const flags = (one) => one.flags.map((flag) =>
  h('span', { class: 'flag' }, WORDS[flag]?.(one) ?? format.words(flag)));

const row = (one) => [
  h('span', { class: 'place' }, `${format.words(one.split)} ${format.count(one.line)}`),
  format.loss(one.loss),
  h('span', {}, h('span', { class: 'asked' }, one.question ?? '–'),
    h('span', { class: 'said' }, one.answer ?? ''), ...flags(one)),
];

export class Examples {
  #session; #asked = false;

  constructor(session) {
    this.#session = session;
    this.note = h('p', { class: 'hint' });
    this.list = h('div');
    this.element = h('section', { class: 'card panel examples', hidden: true },
      h('header', {}, h('h2', {}, 'Hardest examples')), this.note, this.list);
  }

  // Once: what was measured at the end of a job never changes.
  async draw(job) {
    if (this.#asked || job.status !== 'SUCCEEDED') return;
    this.#asked = true;
    try {
      const { job: found } = await this.#session.ask(docs.EXAMPLES, { id: job.id });
      const { nodes, measured, cases, sampled } = found.examples;
      this.element.hidden = measured === 0;
      put(this.note, `Loss under the final weights, ${sampled
        ? `of ${format.count(measured)} among ${format.count(cases)} cases` : `of all ${format.count(cases)} cases`}`
        + ', the highest first. What stands out may be wrong, or new to the model.');
      this.list.replaceChildren(table(['Line', 'Loss', 'Case'], nodes.map(row)));
    } catch {
      this.#asked = false; // the next change of the job asks again
    }
  }
}
