<feed>
% for entry in entries:
  <entry>${entry}</entry>
% endfor
</feed>
