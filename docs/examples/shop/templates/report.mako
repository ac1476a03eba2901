% for row in rows:
${row}
% endfor
