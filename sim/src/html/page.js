// The values under the pointer. Without this the page is whole.
(function () {
  "use strict";
  var whole = 0, figures = [];
  document.querySelectorAll("figure[data-key]").forEach(function (figure) {
    var values = document.getElementById("v-" + figure.dataset.key);
    if (!values) return;
    var lines = JSON.parse(values.textContent);
    var cross = document.createElement("div");
    cross.className = "cross";
    cross.hidden = true;
    var plot = figure.querySelector(".plot");
    plot.appendChild(cross);
    lines.forEach(function (line) { whole = Math.max(whole, line.end); });
    figures.push({ plot: plot, cross: cross, read: figure.querySelector(".read"), lines: lines });
  });
  function show(share) {
    figures.forEach(function (figure) {
      figure.cross.hidden = false;
      figure.cross.style.left = share * 100 + "%";
      figure.read.textContent = "";
      var at = document.createElement("span");
      at.textContent = (share * whole).toFixed(whole < 100 ? 1 : 0) + " s";
      figure.read.appendChild(at);
      figure.lines.forEach(function (line) {
        var place = Math.min(line.values.length - 1, Math.floor(share * line.values.length));
        if (place < 0) return;
        var text = document.createElement("span");
        if (line.place < 8) text.className = "run r" + line.place;
        text.textContent = line.name + " " + line.values[place].toLocaleString("en");
        figure.read.appendChild(text);
      });
    });
  }
  function hide() {
    figures.forEach(function (figure) { figure.cross.hidden = true; figure.read.textContent = ""; });
  }
  figures.forEach(function (figure) {
    figure.plot.addEventListener("pointermove", function (event) {
      var box = figure.plot.getBoundingClientRect();
      show(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
    });
    figure.plot.addEventListener("pointerleave", hide);
  });
})();
