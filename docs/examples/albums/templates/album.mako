<h1>${title}</h1>
% for track in tracks:
<p>${track}</p>
% endfor
% if request.has_permission("sell"):
<p>${margin} %</p>
% endif
<a href="${request.current_route_path(extension='json')}">as JSON</a>
