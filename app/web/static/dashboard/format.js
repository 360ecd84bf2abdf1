// Numbers and times as people read them.
const THOUSANDS = new Intl.NumberFormat('en-US');
const SHORT = new Intl.NumberFormat('en-US', { notation: 'compact', maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23',
});
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

export const count = (value) => THOUSANDS.format(Number(value));
export const plural = (n, word) => `${count(n)} ${word}${Number(n) === 1 ? '' : 's'}`;
export const short = (value) => SHORT.format(Number(value));
export const clock = (at) => CLOCK.format(new Date(at));
export const full = (at) => FULL.format(new Date(at));

export function loss(value) {
  if (value === null || value === undefined) return '–';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-4) return value.toExponential(2);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : size < 0.01 ? 5 : 4);
}

export function percent(value) {
  return `${value >= 100 ? 100 : value.toFixed(value < 10 ? 1 : 0)} %`;
}

export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3_600) return `${Math.floor(s / 60)} min ${s < 600 ? `${s % 60} s` : ''}`.trim();
  if (s < 86_400) return `${Math.floor(s / 3_600)} h ${Math.floor((s % 3_600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3_600)} h`;
}

export function ago(at) {
  const s = (Date.now() - new Date(at)) / 1_000;
  if (s < 5) return 'just now';
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3_600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86_400) return `${Math.floor(s / 3_600)} h ago`;
  return `${Math.floor(s / 86_400)} d ago`;
}

// Empty when that moment is long past: nobody is working on it, or its speed was misjudged.
export function left(at) {
  const s = (new Date(at) - Date.now()) / 1_000;
  if (s < -15) return '';
  return s < 1.5 ? 'nearly done' : `${duration(s)} left`;
}

export function bytes(value) {
  let size = Number(value);
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (size < 1_024) return `${unit === 'B' || size >= 100 ? size.toFixed(0) : size.toFixed(1)} ${unit}`;
    size /= 1_024;
  }
  return `${size.toFixed(1)} TiB`;
}

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeZone: 'UTC' });
export const day = (date) => DATE.format(new Date(date));

export function money(value) {
  if (value > 0 && value < 0.0001) return 'under $0.0001';
  return `$${value.toFixed(value === 0 || value >= 1 ? 2 : 4)}`;
}

export const words = (name) => name.toLowerCase().replaceAll('_', ' ');
