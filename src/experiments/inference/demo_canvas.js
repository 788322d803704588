// The canvas of the demo page. Run once by gradio, which gives `element`, `props` and `trigger`.
const canvas = element.querySelector("canvas");
const [file, brush] = element.querySelectorAll("input");
const [clearing, opening] = element.querySelectorAll("button");
const pen = canvas.getContext("2d");
let drawn = false; // a drawing is on the canvas, and no picture
let waiting = null;
let shown = null; // the picture that was opened last

function send(value) {
  props.value = value;
  trigger("input");
}

function sendDrawing() {
  waiting = null;
  if (drawn) send({ drawn: true, content: canvas.toDataURL("image/png").split(",")[1] });
}

function clear() {
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  drawn = false;
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return [(event.clientX - box.x) * scale, (event.clientY - box.y) * scale];
}

function stroke(event) {
  pen.lineWidth = brush.value;
  pen.lineTo(...place(event));
  pen.stroke();
  waiting ??= setTimeout(sendDrawing, 50);
}

async function show(picture) {
  if (!picture) return;
  clear();
  shown = picture;
  const bytes = new Uint8Array(await picture.arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 32768)
    text += String.fromCharCode(...bytes.subarray(start, start + 32768));
  if (picture === shown) send({ drawn: false, content: btoa(text) });
  const image = await createImageBitmap(picture).catch(() => null); // what the browser cannot read, Python may
  if (!image || drawn || picture !== shown) return; // something else is there by now
  const scale = Math.min(canvas.width / image.width, canvas.height / image.height);
  const [width, height] = [image.width * scale, image.height * scale];
  pen.drawImage(image, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
}

pen.lineCap = pen.lineJoin = "round";
clear();
canvas.addEventListener("pointerdown", (event) => {
  if (!drawn) clear();
  drawn = true;
  canvas.setPointerCapture(event.pointerId);
  pen.beginPath();
  pen.moveTo(...place(event));
  stroke(event);
});
canvas.addEventListener("pointermove", (event) => {
  if (!canvas.hasPointerCapture(event.pointerId)) return;
  const moves = event.getCoalescedEvents?.() ?? []; // all since the last frame, so that quick strokes stay round
  (moves.length ? moves : [event]).forEach(stroke);
});
document.addEventListener("dragover", (event) => event.preventDefault()); // beside the canvas, too
document.addEventListener("drop", (event) => {
  event.preventDefault();
  show(event.dataTransfer.files[0]);
});
opening.addEventListener("click", () => file.click());
file.addEventListener("change", () => {
  show(file.files[0]);
  file.value = ""; // the same file may be chosen again
});
clearing.addEventListener("click", () => {
  clear();
  send(null);
});
