#!/usr/bin/env bash
# Opens pages in a real browser: nothing is asked of a network, nothing goes wrong, everything fits a
# phone, and what lies under the pointer is read out. Leaves pictures of them in a folder, to be
# looked at.
#
#     sim/tests/browser.sh target/release/steadfast target/pages
set -euo pipefail

steadfast=$(realpath "$1")
mkdir -p "$2"
folder=$(realpath "$2")
cd "$folder"

fail() {
    echo "$1" >&2
    exit 1
}

browse() {
    chromium --no-sandbox --headless=new --disable-gpu --hide-scrollbars --disable-background-networking \
        --disable-component-update --allow-file-access-from-files --virtual-time-budget=5000 \
        --user-data-dir="$folder/.profile" "$@"
}

# A page of that name, as wide as a phone, and what a script finds in it.
probe() {
    cat <<PROBE
<!doctype html><body><iframe src="$1.html" style="border:0;width:390px;height:8000px"></iframe><pre></pre><script>
var frame = document.querySelector("iframe"), told = document.querySelector("pre");
frame.onload = function () {
  var page = frame.contentDocument, found = [];
  page.querySelectorAll("details").forEach(function (more) { more.open = true; });
  page.querySelectorAll("body *").forEach(function (one) {
    if (one.closest("svg") || one.closest("script") || (one.closest("pre") && one.tagName !== "PRE")) return;
    var box = one.getBoundingClientRect(), size = parseFloat(frame.contentWindow.getComputedStyle(one).fontSize);
    var what = one.tagName + "." + one.className + " '" + one.textContent.slice(0, 30) + "'";
    if (box.width && (box.right > 390.5 || box.left < -0.5)) found.push("does not fit: " + what);
    if (one.textContent.trim() && size < 11) found.push("too small: " + what);
  });
  if (page.documentElement.scrollWidth > 390) found.push("scrolls: " + page.documentElement.scrollWidth);
  var asked = frame.contentWindow.performance.getEntriesByType("resource");
  asked.forEach(function (one) { found.push("asked for: " + one.name); });
  var plot = page.querySelector(".plot"), box = plot.getBoundingClientRect();
  var at = { clientX: box.left + box.width / 2, clientY: box.top + 10, bubbles: true };
  plot.dispatchEvent(new frame.contentWindow.PointerEvent("pointermove", at));
  var read = page.querySelector(".read").textContent;
  if (!/^[0-9.]+ s.*[0-9]$/.test(read)) found.push("reads out: '" + read + "'");
  told.textContent = "PROBED " + page.querySelectorAll("body *").length + "\n" + found.join("\n");
};
</script></body>
PROBE
}

check() {
    local page=$1 found
    [ "$(wc -c <"$page.html")" -le 500000 ] || fail "$page.html is larger than 500 KB"
    probe "$page" >"$page-probe.html"
    browse --enable-logging=stderr --dump-dom "file://$folder/$page-probe.html" >"$page.dom" 2>"$page.err"
    if grep CONSOLE "$page.err"; then fail "$page.html: the browser complains"; fi
    found=$(sed -n '/<pre>PROBED/,/<\/pre>/p' "$page.dom" | sed 's/<[^>]*>//g')
    [[ $found == PROBED* ]] || fail "$page.html was not probed"
    [ "$(wc -l <<<"$found")" = 1 ] || fail "$page.html: $found"
    echo "$page.html: $(wc -c <"$page.html") bytes, ${found#PROBED } elements, all in place"
    rm "$page.dom" "$page.err"
}

pictures() {
    local page=$1 light=1 dark=0
    for look in light dark; do
        browse --blink-settings=preferredColorScheme=${!look} --window-size=1280,3200 \
            --screenshot="$page-$look.png" "file://$folder/$page.html" 2>/dev/null
    done
    # A window cannot be as narrow as a phone: frames beside each other, each scrolled further.
    {
        echo "<!doctype html><body style='margin:0;display:flex;gap:12px;background:#888'>"
        for top in 0 1500 3000 4500; do
            echo "<div style='flex:none;width:390px;height:1500px;overflow:hidden'><iframe src='$page.html'"
            echo "style='border:0;width:390px;height:8000px;margin-top:-${top}px'></iframe></div>"
        done
    } >"$page-phone.html"
    browse --window-size=1596,1500 --screenshot="$page-phone.png" "file://$folder/$page-phone.html" 2>/dev/null
}

"$steadfast" run herd-lb-restart --set peers.device.count=20000 --set servers.lb.accept=400/s \
    --set 'expect.naive.peak_dials=>= 20000/s' --beside naive,aws-full --html herd.html >/dev/null 2>&1
"$steadfast" run retry-storm --set 'highest_load.policies=[]' --beside naive,grpc,resilience4j \
    --html storm.html >/dev/null 2>&1
for page in herd storm; do
    check "$page"
    pictures "$page"
done
rm -rf .profile ./*-probe.html
