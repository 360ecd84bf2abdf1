// Where jobs are tuned: our own workers, or a provider.
const NAMES = {
  LOCAL: 'Local', OPENAI: 'OpenAI', AZURE: 'Azure', BEDROCK: 'Bedrock', VERTEX: 'Vertex',
  FIREWORKS: 'Fireworks', TOGETHER: 'Together',
};

export const PLACES = Object.keys(NAMES);
export const placeName = (provider) =>
  NAMES[provider] ?? provider[0] + provider.slice(1).toLowerCase();
export const isElsewhere = (job) => job.provider !== 'LOCAL';
