#!/bin/sh
# Installs what the browser tests need where that may be done; where it may not, those tests are skipped and say why.
cd "$(dirname "$0")/.." || exit 0

have_chromium() { [ -n "$CHROMIUM" ] || command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1; }

if ! have_chromium && command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "installing Chromium for the browser tests"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } >/dev/null 2>&1 ||
        echo "Chromium could not be installed: the browser tests will be skipped"
fi
have_chromium || echo "no Chromium: install it (Debian: apt-get install chromium) to run the browser tests"

if [ ! -f node_modules/axe-core/axe.min.js ] && command -v npm >/dev/null 2>&1; then
    npm install --no-save --no-package-lock --silent axe-core@4 >/dev/null 2>&1 ||
        echo "axe-core could not be installed: the accessibility test will be skipped"
fi
exit 0
