// What Apollo, urql and Relay want of a subscription: results into a sink, and a way to stop.
import type { luthier } from './luthier.ts';

export interface Sink<R> {
  next(result: R): void;
  error(error: Error): void;
  complete(): void;
}

export function pour<R>(
  { subscribe }: ReturnType<typeof luthier>, text: string, variables: object, sink: Sink<R>,
): () => void {
  const left = new AbortController();
  async function flow() {
    const results = subscribe(text, variables, { signal: left.signal });
    for await (const data of results) sink.next({ data } as R);
    if (!left.signal.aborted) sink.complete();
  }
  flow().catch(sink.error.bind(sink));
  return () => left.abort();
}
