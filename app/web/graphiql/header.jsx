import { useState } from 'react';
import { maskKey } from './key.js';

const KEY_STATE = {
  accepted: ['lt-ok', 'Key accepted'],
  refused: ['lt-bad', 'Key refused'],
  unchecked: ['lt-idle', 'Key'],
};

const LIVE = { connecting: 'connecting', live: 'live', reconnecting: 'reconnecting' };

function Mark() {
  return (
    <svg className="lt-mark" viewBox="0 0 24 24" aria-hidden="true">
      <path d="M15.2 6.4C13.6 3.4 10 4.8 10.6 8.2c.6 3.3 3 4.3 3 7.4 0 3.5-3.6 4.8-5 1.9" />
      <path d="M9.8 12.9l4.5-1.6" />
      <circle cx="15.2" cy="6.9" r="1.7" /><circle cx="8.7" cy="17.1" r="1.7" />
    </svg>
  );
}

export function Header({ home, keyText, verdict, live, slotRef, onForget }) {
  const [kind, label] = KEY_STATE[verdict];
  return (
    <header className="lt-header">
      <a className="lt-brand" href={home} title="To the dashboard"><Mark />Luthier</a>
      <span className="lt-where">GraphiQL</span>
      <a className="lt-link" href={home}>Dashboard</a>
      <span className="lt-space" />
      {live && <span className={`lt-stream lt-${live}`} role="status"><i />{LIVE[live]}</span>}
      <span className="lt-slot" ref={slotRef} />
      {keyText ? (
        <span className={`lt-key ${kind}`} role="status" data-verdict={verdict}>
          <i />{label}<code>{maskKey(keyText)}</code>
          <button type="button" onClick={onForget} title="Remove the key from this tab">
            Forget
          </button>
        </span>
      ) : (
        <span className="lt-key lt-none" role="status"><i />No key</span>
      )}
    </header>
  );
}

export function KeyBar({ refused, onKey }) {
  const [value, setValue] = useState('');
  function submit(event) {
    event.preventDefault();
    if (value.trim()) onKey(value.trim());
    setValue('');
  }
  return (
    <form className={`lt-bar ${refused ? 'lt-refused' : ''}`} onSubmit={submit}>
      <label htmlFor="lt-key-input">
        <strong>
          {refused ? 'The server did not accept this key.' : 'Paste an API key to begin.'}
        </strong>
        {' '}The first one is in <code>&lt;data dir&gt;/owner-key</code> (the data dir
        is <code>.luthier</code> unless you changed it); <code>luthier keys</code> makes more.
        It stays in this browser tab.
      </label>
      <input id="lt-key-input" type="password" autoComplete="off" spellCheck="false"
        placeholder="lt_…" value={value} onChange={(event) => setValue(event.target.value)} />
      <button type="submit" className="lt-button lt-primary">Use key</button>
    </form>
  );
}
