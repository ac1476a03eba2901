% for album in albums:
<a href="${request.route_path('album', id=album.title)}">${album.title}</a>
% endfor
