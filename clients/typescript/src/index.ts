/** A typed client of a NextEdge service: paths, parameters and answers of its OpenAPI document. */
import createClient, { type Client, type Middleware } from "openapi-fetch";

import type { components, paths } from "./schema.js";

export type { components, paths };
export type Recommendations = components["schemas"]["RecommendationsOut"];
export type Event = components["schemas"]["Event"];
export type Problem = components["schemas"]["Problem"];

export interface Options {
  /** Where the service is, as http://127.0.0.1:8000. */
  url: string;
  /** Of `nextedge keys create`. */
  apiKey?: string;
  /** Further tries after a 429 or a 503; 3 where it is left out. */
  retries?: number;
  /** Milliseconds that one try may take; 10,000 where it is left out. */
  timeoutMs?: number;
}

const AGAIN = new Set([429, 503]);
const LONGEST_MS = 30_000;

/** Milliseconds to wait: what the service asks for, or longer and longer. */
export function waitMs(attempt: number, retryAfter: string | null): number {
  const backoff = 200 * 2 ** attempt * (0.5 + Math.random());
  const asked = Number.parseInt(retryAfter ?? "0", 10) * 1000;
  return Math.min(Math.max(backoff, Number.isNaN(asked) ? 0 : asked), LONGEST_MS);
}

/** A client whose methods are those of openapi-fetch: `client.GET("/v1/releases")`. */
export function nextedge({ url, apiKey, retries = 3, timeoutMs = 10_000 }: Options): Client<paths> {
  const client = createClient<paths>({
    baseUrl: url,
    fetch: async (request: Request) => {
      for (let attempt = 0; ; attempt++) {
        const signal = AbortSignal.any([request.signal, AbortSignal.timeout(timeoutMs)]);
        const response = await fetch(request.clone(), { signal });
        if (!AGAIN.has(response.status) || attempt >= retries) return response;
        const wait = waitMs(attempt, response.headers.get("retry-after"));
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    },
  });
  const authorise: Middleware = {
    onRequest({ request }) {
      if (apiKey !== undefined) request.headers.set("Authorization", `Bearer ${apiKey}`);
      return request;
    },
  };
  client.use(authorise);
  return client;
}
