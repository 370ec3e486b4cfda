// The runs of this page as small pictures: a click shows one again and puts its settings into the form.
// Shares the scope of player.js. Nothing of this leaves the page.

const SHOT_HEIGHT = 54;

// A picture from the middle of a pane's film, or null before its first one; of a long film what is on the screen.
function shotOf(pane) {
  const middle = Math.floor(Math.min(pane.frames.count, pane.frames.last + 1) / 2);
  const frame = film.long ? pane.shown : pane.frames.nearest(middle);
  if (frame < 0) return null;
  const shot = document.createElement("canvas");
  shot.height = SHOT_HEIGHT;
  shot.width = Math.round((SHOT_HEIGHT * pane.frames.width) / pane.frames.height);
  const paper = shot.getContext("2d");
  paper.fillRect(0, 0, shot.width, shot.height); // where nothing is painted yet
  paper.drawImage(film.long ? pane.canvas : pane.frames.pictures.get(frame), 0, 0, shot.width, shot.height);
  return shot;
}

// Takes the run that has just come to its end into the list; without a picture there is nothing to come back to.
function remember(run) {
  const shots = film.panes.map(shotOf).filter(Boolean);
  if (!shots.length || run.shots) return;
  Object.assign(run, { shots, clips: film.clips });
  drawHistory();
}

function drawHistory() {
  const runs = archive.runs.filter((run) => run.shots).reverse();
  find("history").hidden = !runs.length;
  find("history ol").replaceChildren(
    ...runs.map((run) => {
      const item = document.createElement("li"), button = make("button");
      const time = timeOf(run);
      const about = `${run.clips[0].prompt} (${run.clips.map((clip) => clip.label).join(" against ")})`;
      button.type = "button";
      button.title = about;
      button.setAttribute("aria-label", `Run of ${time}: ${about}`);
      button.append(...run.shots, make("span", time));
      button.onclick = () => recall(run);
      item.append(button);
      return item;
    }),
  );
}

function recall(run) {
  if (!film.over) return say("Wait for the films that are being made, or stop them.");
  if (run.messages) watchRun(run.job, (onMessage) => replayRun(run.messages, onMessage, false));
  else say("Only short films are kept here to be played again. The settings are in the form.");
  trigger("select", { job: run.job, films: run.clips.map((clip) => clip.settings) });
}
