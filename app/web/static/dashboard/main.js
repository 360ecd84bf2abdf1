// The dashboard's entry: the key, the session that lives as long as it, and what the address shows.
import { VIEWER } from './documents.js';
import { h } from './dom.js';
import { Header } from './header.js';
import { JobPage } from './job.js';
import { JobList } from './jobs.js';
import { forgetKey, readKey, storeKey, takeKeyFromFragment } from './key.js';
import { ProvidersPage } from './providers.js';
import { Session } from './session.js';
import { Store } from './store.js';

const page = document.getElementById('luthier');
const { root } = page.dataset;
const main = h('main');
const header = new Header({ root, onKey: useKey, onForget: forget });

let session = null;
let store = null;
let list = null;
let detail = null;
let viewer = null;
let verdict = 'unchecked';

function judge(answer) {
  verdict = answer;
  header.setKey(readKey(), verdict);
}

function stop() {
  detail?.close();
  store?.close();
  session?.close();
  session = store = list = detail = viewer = null;
  main.replaceChildren();
  header.setStream(null);
  header.setOrganization(null);
}

function start() {
  stop();
  const key = readKey();
  judge('unchecked');
  if (!key) return;
  const own = new Session({
    root,
    key,
    onState: (state) => { if (session === own) streamed(state); },
    onAccepted: () => { if (session === own && verdict !== 'accepted') judge('accepted'); },
    onRefused: () => { if (session === own) { stop(); judge('refused'); } },
  });
  session = own;
  store = new Store(session);
  list = new JobList(store, root);
  main.append(list.element);
  show();
}

// Figures and details are asked for, not streamed: what was missed while away is asked for again.
function streamed(state) {
  header.setStream(state);
  if (state !== 'live') return;
  store?.restat();
  detail?.refresh();
  const own = session;
  if (!viewer) own.ask(VIEWER).then((found) => own === session && introduce(found), () => {});
}

function introduce(found) {
  ({ viewer } = found);
  header.setOrganization(viewer);
  detail?.refresh();
}

function useKey(key) {
  storeKey(key);
  start();
}

function forget() {
  forgetKey();
  start();
}

function show() {
  if (!session) return;
  const [, job = null] = /^#\/jobs\/(\w+)$/.exec(location.hash) ?? [];
  const id = location.hash === '#/providers' ? '/providers' : job;
  if ((detail?.id ?? null) === id) return;
  detail?.close();
  detail?.element.remove();
  detail = !id ? null : job ? new JobPage(session, store, () => viewer, id)
    : new ProvidersPage(session, root, (provider) => list.choosePlace(provider));
  page.dataset.view = !id ? 'jobs' : job ? 'job' : 'providers';
  header.setView(page.dataset.view);
  list.setOpen(job);
  scrollTo(0, 0);
  if (detail) {
    main.append(detail.element);
    if (!list.element.offsetParent) detail.back.focus(); // the link that was followed is hidden
  } else {
    document.title = 'Jobs · Luthier';
  }
}

addEventListener('hashchange', () => {
  if (takeKeyFromFragment()) start();
  else show();
});
setInterval(() => { list?.tick(); detail?.tick(); }, 1_000);

takeKeyFromFragment();
page.replaceChildren(header.element, header.bar, main);
start();
