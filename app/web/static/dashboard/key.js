// The API key lives in sessionStorage only (GraphiQL reads the same entry). A link may bring it in
// the fragment, which browsers never send; it is taken out of the address bar at once.
const ENTRY = 'luthier.apiKey';

export function takeKeyFromFragment() {
  const given = new URLSearchParams(location.hash.slice(1)).get('key');
  if (given === null) return false;
  if (given.trim()) sessionStorage.setItem(ENTRY, given.trim());
  history.replaceState(history.state, '', location.pathname + location.search);
  return true;
}

export const readKey = () => sessionStorage.getItem(ENTRY) ?? '';
export const storeKey = (key) => sessionStorage.setItem(ENTRY, key);
export const forgetKey = () => sessionStorage.removeItem(ENTRY);
export const maskKey = (key) => (key.length > 12 ? `${key.slice(0, 5)}…${key.slice(-3)}` : '•••');
