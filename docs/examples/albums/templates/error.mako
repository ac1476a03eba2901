<p>${path}: ${detail}</p>
