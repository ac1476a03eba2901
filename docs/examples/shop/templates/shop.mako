<h1>Basket: ${", ".join(basket)}</h1>
<ul>
% for offer in offers.result():
  <li>${offer}</li>
% endfor
</ul>
<p>${plural(len(offers.result()), "offer")}</p>
