# What a dashboard must be to work in any Grafana. Each line of output is a complaint.
# Used by dashboards/test.

def complain(what; panels): panels | "\(what): \(.title)";
def uses(pattern): any(.targets[].expr; test(pattern));

[.panels[] | select(.type != "row")] as $panels
| (if (.uid // "") == "" then "it has no fixed uid" else empty end),
  (if .id != null then "it carries the id of one Grafana" else empty end),
  (if any(.templating.list[]; .type == "datasource") then empty else "it has no datasource variable" end),
  (if (.panels | map(.id) | unique | length) == (.panels | length) then empty else "panel ids repeat" end),
  complain("not from the datasource variable"; $panels[] | select(.datasource.uid != "${datasource}")),
  complain("no unit"; $panels[] | select((.fieldConfig.defaults.unit // "") == "")),
  complain("no description"; $panels[] | select((.description // "") == "")),
  complain("no thresholds"; $panels[] | select(.type == "stat" and .fieldConfig.defaults.thresholds == null)),
  complain("a rate over a fixed range"; $panels[] | select(uses("\\[[0-9]"))),
  complain("not of the chosen instance"; $panels[] | select(uses("instance=~\"\\$instance\"") | not)),
  complain("wider than 24 columns"; $panels[] | select(.gridPos.x + .gridPos.w > 24))
