// React: const { events, error, state } = useJobEvents(client, jobId)
import { useEffect, useState } from 'react';
import { JOB_EVENTS, type JobEvent } from './events.ts';
import type { luthier } from './luthier.ts';

type Watched = { events: JobEvent[]; error?: unknown; state: 'live' | 'reconnecting' | 'over' };

/** A job's whole log, and then what happens. `client` is made once, outside of components. */
export function useJobEvents({ subscribe }: ReturnType<typeof luthier>, jobId: string): Watched {
  const [watched, setWatched] = useState<Watched>({ events: [], state: 'reconnecting' });

  useEffect(() => {
    const left = new AbortController();
    const update = (change: (before: Watched) => Partial<Watched>) => {
      if (!left.signal.aborted) setWatched((before) => ({ ...before, ...change(before) }));
    };
    async function watch() {
      setWatched({ events: [], state: 'reconnecting' });
      const options = {
        after: '0',
        signal: left.signal,
        onState: (state: 'live' | 'reconnecting') => update(() => ({ state })),
      };
      for await (const { jobEvents } of subscribe(JOB_EVENTS, { jobId }, options)) {
        update(({ events }) => ({ events: [...events, jobEvents] }));
      }
      update(() => ({ state: 'over' }));
    }
    watch().catch((error: unknown) => update(() => ({ error, state: 'over' })));
    return () => left.abort();
  }, [subscribe, jobId]);

  return watched;
}
