"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const by = (name) => document.getElementById(name);
  const state = { field: 0, step: Math.floor(data.times.length / 2), view: "spread", event: 0, member: 0 };
  if (data.members.length < 2) state.view = "members";

  function make(tag, parent, attributes) {
    const element = document.createElement(tag);
    Object.assign(element, attributes || {});
    if (parent) parent.append(element);
    return element;
  }

  function layers(parent, count) {
    parent.style.aspectRatio = 1 / data.shape;
    const found = [];
    for (let index = 0; index < count; index++) found.push(make("img", parent, { alt: "" }));
    found[count - 1].src = data.coast;
    return found;
  }

  // A member is a part of the sheet that all of them are on.
  function crop(image, member) {
    const rows = Math.ceil(data.members.length / data.columns);
    image.style.width = 100 * data.columns + "%";
    image.style.height = 100 * rows + "%";
    image.style.left = -100 * (member % data.columns) + "%";
    image.style.top = -100 * Math.floor(member / data.columns) + "%";
  }

  const left = layers(by("left"), 2);
  const right = layers(by("right"), 3);
  const enlarged = make("div", null, { className: "sheet" });
  by("right").insertBefore(enlarged, right[2]);
  const sheet = make("img", enlarged, { alt: "" });

  const fieldButtons = data.fields.map((field, index) => {
    const button = make("button", by("fields"), { type: "button", textContent: field.name, title: field.label });
    button.onclick = () => { state.field = index; state.event = 0; show(); };
    return button;
  });

  const stampButtons = data.members.map((number, index) => {
    const button = make("button", by("stamps"), { type: "button", title: "Member " + number });
    make("span", button, { className: "label", textContent: String(number) });
    const map = make("div", button, { className: "map" });
    const images = layers(map, 2);
    crop(images[0], index);
    button.onclick = () => { state.view = "members"; state.member = index; show(); };
    button.sheet = images[0];
    return button;
  });

  function choices(field) {
    const many = data.members.length > 1;
    const found = many ? [["spread", 0, "spread"]] : [];
    field.probabilities.forEach((_, index) => found.push(["probabilities", index, "probability " + field.events[index]]));
    if (many) found.push(["spaghetti", 0, "spaghetti"]);
    found.push(["members", 0, "member " + data.members[state.member]]);
    return found;
  }

  function legend(target, view) {
    target.replaceChildren();
    if (!view.ticks.length) {
      ["members", "mean"].forEach((label, index) => {
        make("i", target, { className: "key" }).style.borderColor = view.colours[index];
        make("b", target, { textContent: label }).style.marginLeft = 0;
      });
      return;
    }
    const every = view.ticks.length > 9 ? 2 : 1;
    view.colours.forEach((colour, index) => {
      const cell = make("i", target);
      cell.style.background = colour;
      if (index < view.ticks.length && index % every === 0) {
        make("span", cell, { textContent: String(view.ticks[index]).replace("-", "−") });
      }
    });
    make("b", target, { textContent: view.units });
  }

  function show() {
    const field = data.fields[state.field];
    if (state.view === "probabilities" && !field.probabilities[state.event]) state.view = "spread";
    const view = state.view === "probabilities" ? field.probabilities[state.event] : field[state.view];
    const name = field.label[0].toUpperCase() + field.label.slice(1);

    by("lead").value = state.step;
    by("time").textContent = data.times[state.step];
    fieldButtons.forEach((button, index) => button.setAttribute("aria-pressed", index === state.field));
    by("views").replaceChildren();
    choices(field).forEach(([kind, event, label]) => {
      const button = make("button", by("views"), { type: "button", textContent: label });
      button.setAttribute("aria-pressed", kind === state.view && event === state.event);
      button.onclick = () => { state.view = kind; state.event = event; show(); };
    });

    left[0].src = field.mean.pictures[state.step];
    by("left-title").textContent = name + (data.members.length > 1 ? ", mean" : "");
    legend(by("left-legend"), field.mean);

    const member = state.view === "members";
    enlarged.style.display = member ? "block" : "none";
    right[1].style.display = member ? "none" : "block";
    right[0].style.display = state.view === "spaghetti" ? "block" : "none";
    right[0].src = data.land;
    if (member) {
      sheet.src = view.pictures[state.step];
      crop(sheet, state.member);
    } else {
      right[1].src = view.pictures[state.step];
    }
    by("right-title").textContent = {
      spread: name + ", spread",
      members: name + ", member " + data.members[state.member],
      spaghetti: name + ", " + view.label,
      probabilities: "Probability of " + view.label,
    }[state.view];
    legend(by("right-legend"), view);

    stampButtons.forEach((button, index) => {
      button.sheet.src = field.members.pictures[state.step];
      button.setAttribute("aria-pressed", member && index === state.member);
    });
  }

  by("lead").max = data.times.length - 1;
  by("lead").oninput = () => { state.step = Number(by("lead").value); show(); };
  let timer = null;
  by("play").onclick = () => {
    const playing = timer !== null;
    by("play").textContent = playing ? "▶" : "❚❚";
    by("play").setAttribute("aria-label", playing ? "Play" : "Pause");
    if (playing) { clearInterval(timer); timer = null; return; }
    timer = setInterval(() => { state.step = (state.step + 1) % data.times.length; show(); }, 600);
  };
  document.querySelector(".viewer").hidden = false;
  show();
})();
