// Every place where jobs can be tuned: what it can do, whether we have access, what ends there.
import { coalesce, h, put } from './dom.js';
import * as docs from './documents.js';
import * as format from './format.js';
import { facts } from './panels.js';
import { placeName } from './places.js';

const EVERY = 10; // seconds
const SOON = 90; // days
const DAY = 86_400_000;
const STATES = {
  OK: ['ready', 'credential accepted'], DENIED: ['failed', 'credential refused'], UNREACHABLE: ['stale', 'out of reach'],
  UNCHECKED: ['', 'credential not tried yet'],
};

export class ProvidersPage {
  id = '/providers'; #session; #showJobs; #root; #feed; #closed = false; #ticks = 0;
  #models = []; #told = new Map(); #drawn = '';

  // `showJobs` shows the list with the jobs of one provider.
  constructor(session, root, showJobs) {
    this.#session = session;
    this.#root = root;
    this.#showJobs = showJobs;
    this.back = h('a', { class: 'back', href: '#/' }, '← All jobs');
    this.nothing = h('p', { class: 'nothing', role: 'status' }, 'Loading …');
    this.cards = h('div', { class: 'places' });
    this.element = h('section', { class: 'providers', 'aria-label': 'Providers' },
      this.back, h('h1', {}, 'Providers'), this.nothing, this.cards);
    document.title = 'Providers · Luthier';
    this.refresh = coalesce(() => this.#refresh().catch((error) => put(this.nothing, error.message)));
    this.reread = coalesce(() => this.#readModels().catch(() => {})); // the next news asks again
    // From the beginning: the ends of tuned models are told there only.
    this.#feed = session.live.subscribe(docs.SUNSETS, { after: '0' }, {
      next: (news) => { this.#told.set(`${news.provider} ${news.model}`, news); this.reread(); },
    });
    this.refresh();
    this.reread();
  }

  close() {
    this.#closed = true;
    this.#feed.stop();
  }

  tick() {
    this.#ticks += 1;
    if (this.#ticks % EVERY === 0 && !document.hidden) this.refresh();
  }

  async #readModels() {
    const found = [];
    for (let after = null; !this.#closed;) {
      const { baseModels } = await this.#session.ask(docs.BASE_MODELS, { after });
      found.push(...baseModels.nodes);
      if (!baseModels.pageInfo.hasNextPage) break;
      after = baseModels.pageInfo.endCursor;
    }
    this.#models = found;
    this.refresh();
  }

  async #refresh() {
    const known = await this.#session.ask(docs.PROVIDERS);
    if (this.#closed) return;
    const credentials = new Map(known.providerCredentials.map((one) => [one.provider, one]));
    const counts = new Map(known.stats.groups.map((one) => [one.key.toUpperCase(), one]));
    const cards = known.providers.map((place) =>
      this.#card(place, credentials.get(place.provider), counts.get(place.provider)));
    this.nothing.hidden = true;
    // Left alone while nothing in it changes: somebody may be reading or selecting there.
    const drawn = cards.map((card) => card.textContent).join();
    if (drawn !== this.#drawn) this.cards.replaceChildren(...cards);
    this.#drawn = drawn;
  }

  #card(place, credential, jobs) {
    const [tone, words] = state(place, credential);
    const ending = this.#ending(place.provider);
    const badge = h('span', { class: `badge ${tone}` }, words);
    return h('section', { class: 'card panel place', 'data-provider': place.provider },
      h('header', {}, h('h2', {}, place.name), badge),
      place.credentialTrouble ? h('p', { class: 'warning' }, place.credentialTrouble) : null,
      facts(this.#facts(place, credential, jobs)),
      credential || place.provider === 'LOCAL' ? null : h('p', { class: 'hint' },
        'Jobs can go there once the project has a credential: ', h('code', {}, 'setProviderCredential'),
        ' in ', h('a', { href: `${this.#root}/graphql` }, 'GraphiQL'), '.'),
      ending.length ? h('h3', {}, `Models that have ended or will within ${SOON} days`) : null,
      ending.length ? h('ul', { class: 'ending' }, ending.map(({ model, words: end, near }) =>
        h('li', {}, h('code', {}, model), h('span', { class: near ? 'near' : null }, end)))) : null);
  }

  #facts(place, credential, jobs) {
    const { can, cannot } = abilities(place);
    const pairs = [['methods', place.methods.join(', ')], ['can', can]];
    if (cannot) pairs.push(['cannot', cannot]);
    pairs.push(['a model answers', place.needsDeployment ? 'once it is deployed' : 'without being deployed']);
    if (place.provider !== 'LOCAL') pairs.push(['tells of changes', webhooks(place, credential)]);
    if (credential) pairs.push(['credential', h('code', {}, credential.hint), tried(credential)]);
    if (jobs) pairs.push(['jobs', this.#jobs(place.provider, jobs)]);
    return pairs;
  }

  #jobs(provider, { total, live, cost }) {
    const said = [live !== total && format.count(total), live > 0 && `${format.count(live)} under way`,
      cost > 0 && format.money(cost)].filter(Boolean).join(', ');
    return h('a', {
      href: '#/', 'aria-label': `Jobs at ${placeName(provider)}: ${said}`,
      onclick: () => this.#showJobs(provider),
    }, said);
  }

  #ending(provider) {
    const listed = this.#models.filter((one) => one.provider === provider);
    const names = new Set(listed.map(({ name }) => name));
    const tuned = [...this.#told.values()].filter((one) => one.provider === provider && !names.has(one.model));
    return [
      ...listed.map((one) => ({ model: one.name, on: one.shutsDownOn, gone: Boolean(one.missingSince) })),
      ...tuned.map((one) => ({ model: one.model, on: one.ends, gone: one.gone })),
    ].map((one) => ({ ...one, left: one.on && daysTo(one.on) }))
      .filter(({ left, gone }) => gone || (left !== null && left <= SOON))
      .sort((a, b) => (a.on ?? '').localeCompare(b.on ?? '') || a.model.localeCompare(b.model))
      .map((one) => ({ model: one.model, words: endWords(one), near: one.gone || one.left <= 30 }));
  }
}

function state({ provider, configured, healthy }, credential) {
  if (provider === 'LOCAL') return healthy ? ['ready', 'healthy'] : ['stale', 'no worker is alive'];
  if (!configured) return ['', 'no credential'];
  return STATES[credential?.status] ?? STATES[healthy ? 'OK' : 'UNCHECKED'];
}

function abilities(place) {
  const all = [
    ['pause', place.canPause], ['resume', place.canResume], ['show checkpoints', place.hasCheckpoints],
    ['measure steps', place.metrics !== null], ['deploy', place.canDeploy],
  ];
  const those = (able) => all.filter(([, does]) => does === able).map(([name]) => name).join(', ');
  return { can: those(true), cannot: those(false) };
}

function webhooks({ webhooks: kind }, credential) {
  if (!kind) return 'when it is asked';
  const how = kind === 'signed' ? 'webhooks' : `webhooks by ${kind}`;
  if (!credential) return `${how}, else when it is asked`;
  if (!credential.webhooksConfigured) return `when it is asked; ${how} have no secret here yet`;
  const refused = Number(credential.refusedWebhooks);
  return refused ? `${how}; ${format.plural(refused, 'forged one')} refused` : how;
}

const tried = ({ checkedAt }) => h('small', {}, checkedAt ? `tried ${format.full(checkedAt)}` : 'not tried yet');

const daysTo = (date) => Math.round((new Date(date) - Math.floor(Date.now() / DAY) * DAY) / DAY);

function endWords({ on, left, gone }) {
  const when = on && (left < 0 ? `ended ${format.day(on)}` : left === 0 ? 'ends today'
    : `ends ${format.day(on)}, in ${format.plural(left, 'day')}`);
  return [gone && 'not listed any more', when].filter(Boolean).join(' · ');
}
