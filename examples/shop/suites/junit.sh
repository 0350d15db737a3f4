# Sourced by the suites: check NAME COMMAND... runs a test case, finish writes
# the JUnit file that Dayfly collects from $DAYFLY_RESULTS.
cases='' failed=0 total=0
check() {
    name=$1
    shift
    total=$((total + 1))
    if out=$("$@" 2>&1); then
        echo "ok      $name"
        cases="$cases<testcase classname=\"$DAYFLY_SUITE\" name=\"$name\"/>"
    else
        failed=$((failed + 1))
        echo "FAILED  $name: $out"
        out=$(printf %s "$out" | sed 's/&/\&amp;/g; s/</\&lt;/g; s/"/\&quot;/g')
        cases="$cases<testcase classname=\"$DAYFLY_SUITE\" name=\"$name\"><failure message=\"$out\"/></testcase>"
    fi
}
equal() {
    [ "$1" = "$2" ] || { echo "expected $2, got $1"; return 1; }
}
get() { curl -fsS --max-time 5 "$DAYFLY_ADDRESS$1"; }
finish() {
    printf '<testsuite name="%s" tests="%d" failures="%d">%s</testsuite>\n' "$DAYFLY_SUITE" "$total" "$failed" "$cases" >"$DAYFLY_RESULTS/$DAYFLY_SUITE.xml"
    [ "$failed" = 0 ]
}
