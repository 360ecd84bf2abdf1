// The API key lives in sessionStorage only (the dashboard reads the same entry). A link may bring
// it in the fragment, which browsers never send; it is taken out of the address bar at once.
const ENTRY = 'luthier.apiKey';

function takeFromFragment() {
  const given = new URLSearchParams(location.hash.slice(1)).get('key');
  if (given === null) return;
  if (given.trim()) sessionStorage.setItem(ENTRY, given.trim());
  history.replaceState(history.state, '', location.pathname + location.search);
}

export const readKey = () => sessionStorage.getItem(ENTRY) ?? '';
export const storeKey = (key) => sessionStorage.setItem(ENTRY, key);
export const forgetKey = () => sessionStorage.removeItem(ENTRY);
export const maskKey = (key) => (key.length > 12 ? `${key.slice(0, 5)}…${key.slice(-3)}` : '•••');

// `changed` is called when a link with a key is opened in a tab that already shows the page.
export function watchFragment(changed) {
  takeFromFragment();
  const listener = () => { takeFromFragment(); changed(readKey()); };
  addEventListener('hashchange', listener);
  return () => removeEventListener('hashchange', listener);
}
