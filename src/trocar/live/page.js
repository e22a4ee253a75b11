"use strict";

const place = (name) => document.getElementById(name);
const STALLED_S = 2; // no frame for so long is said

function digits(value, count = 0) {
  return value === null || value === undefined ? "–" : value.toFixed(count);
}

function tell(text) {
  place("state").textContent = text;
  place("state").hidden = text === "";
}

function show(now) {
  place("figures").hidden = false;
  place("source").textContent = now.source.includes("://") ? now.source : now.source.split(/[\\/]/).pop();
  for (const name of ["p50", "p95", "p99"]) place(name).textContent = digits(now.recent_latency_ms[name]);
  place("rate").textContent = digits(now.frames_per_second, 1);
  place("dropped").textContent = now.dropped;
  place("late").textContent = now.late;
  place("late").parentElement.classList.toggle("marked", now.late > 0);
  place("quality").textContent = digits(now.quality, 2);
  place("quality").parentElement.classList.toggle("marked", now.look_at === true);
  place("late_ms").textContent = digits(now.late_ms);
  place("limit").textContent = now.quality_limit === null ? "" : `; marked under ${digits(now.quality_limit, 2)}`;
  const about = [`Model ${now.model}`, now.engine];
  if (now.smoothing !== "none") about.push(`smoothed: ${now.smoothing}`);
  if (now.recording) {
    const missed = now.recording.missed ? `, ${now.recording.missed} left out` : "";
    about.push(`recording ${now.recording.file}: ${now.recording.frames} frames${missed}`);
  }
  if (now.reconnections) about.push(`connected again ${now.reconnections} times`);
  if (now.lost) about.push(`${now.lost} frames could not be decoded`);
  if (now.damaged) about.push(`${now.damaged} frames decoded with errors`);
  place("about").textContent = `${about.filter(Boolean).join(" · ")}.`;
  const trouble = now.recording && now.recording.error ? `The recording has ended: ${now.recording.error}` : "";
  if (now.state === "ended") tell(`Ended: ${now.ended}. The picture is the last one.`);
  else if (now.since_frame_s === null) tell("Waiting for the first frame.");
  else if (now.since_frame_s > STALLED_S) tell(`No frame for ${digits(now.since_frame_s)} s: the picture is old.`);
  else tell(trouble);
}

let ended = false;
const events = new EventSource("/events");
events.onmessage = (event) => show(JSON.parse(event.data));
events.addEventListener("end", (event) => {
  ended = true;
  events.close();
  show(JSON.parse(event.data));
});
events.onerror = () => {
  if (ended) return;
  if (events.readyState === EventSource.CLOSED) tell("Too many viewers look on already. Close another page and load this one again.");
  else tell("trocar does not answer: the picture is old.");
};
place("picture").addEventListener("error", () => {
  if (!ended) tell("No picture comes. Is trocar still running, or are too many pages open?");
});
