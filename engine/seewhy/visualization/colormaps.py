"""Colormaps: tables of 256 RGB colours, from the colour of the lowest heat to that of the highest.

The tables equal `matplotlib.colormaps[name](range(256), bytes=True)`. Authors: inferno, magma, plasma and viridis by
Nathaniel J. Smith and Stefan van der Walt (CC0); cividis by Jamie R. Nunez, Christopher R. Anderton and Ryan S. Renslow
(2018, as published in matplotlib); turbo by Anton Mikhailov (Google, Apache-2.0); jet after MATLAB's.
"""

from __future__ import annotations

import base64
from functools import cache

import numpy as np

from seewhy._shared.arrays import Bytes
from seewhy._shared.checks import one_of
from seewhy.visualization.drawing_options import COLORMAPS

# Each table is the base-85 text of its 768 bytes R G B R G B ...
_TABLES = {
    "inferno": (
        "0009300aO41_1yE0RagC0Sf{F4gvxY0|F8R0~7=U76k+t1_T=i1sw<m9|;B_3I`(#2PO>&C=LiJ4+$+02`>@~G7}0k6bm*M3pp1H"
        "I~fZ;8Vf)i3_~3ZMIQ`DAPh<(3rr*nP9_UbCks+33sfr#RxJuxE(%&O3S2S?T{H<_H3?uh31K-2Vmk?BJPBn!31&bEW<d#OLkeg`"
        "3TZ|PX-ErdN(*XB3~NmcYflYqPz`KS4s25nZB-9#R}XDi5N%o!ZCep;T@r3z5^i7<ZekQ}V-#*>6>eq~ZfF*6Y8P&67jA7BZf+QE"
        "a2alL8EtbKZFL)Mb{lPY9Bq0WZF?PTeI0Cm9&CUgYk?nYgCJ{#AZmsoYKS3fi6Uu>B592yX^tdlkR)i4C1;Z*XO$*qmL_JHCuNx^"
        "WSb~toGD|TDPy22VxcQxqbp&gEMTTAU#Bf!sV-itE?ulIT&^%%uQ6M(F<P=RS+p})wKG?@G*-AZR=PG-yEjz5H&ebiQolJ-!8%aF"
        "J5R(sPQ^V<$39HRK1<0zO3Oe=%t1)aLPyU;M$kn>(MChkM?%y{LDfk>)=EFuOFr36J=#t?+fO>&P&wUFINnn?-&8i>Ry5*QGvin?"
        "<XSQ1TQKHaF6Le>=U*)7VJqokD(Yk?>t!eGXD01vCGBb>?rb9OZ6WY)AMkJ<@p2vVbR6<^8uND<^LZHbdKUG374?1;_J9)hff4tE"
        "5ch=+_=gSnhz$6O3;B!*`Hl$rkO=yb2l|r+`jrOymj?Tp2K$=^`<({+o(KD&2m7K3`=ko{rVIP14g0DN`>YWAt`hsO6#KCj`?DDP"
        "wHo`k9Q(N*`nw_ey(9X+CHlcA`NJyt#Vq;9FZjtZ_{%i-%{TYYI``2$_R~N1)k5{xMfKT8^xI4H+)wk~QuE+e^Ws_Z<X!USVDac="
        "@#$#s>umAuaPjVR@$h-^@_q92f%5c)^Y)4K_l@=Vk@otP_xqXo{GIy!p#1)%"
    ),
    "magma": (
        "0009300aO41_1yE0RagC0Sf{G4FUoW0|OBR0}})U6$Jzr1_c=h1sezk9SH{?3I`$!2qX*%CJhQG4hkv{3oH-}FA)qe5)CsH4K)=G"
        "I2H~%7Y{rb4?h|ZK^qW691unx5J?{qOCS+VA`ws{5mF@)RVEQvC=ppI5nL+~UM&z{FA!od5M?qDXEYFKH4kbx4{SLPZaWWeJP&a`"
        "4{|^cb3zYvLl1RD4|YcncSsO;N)UNV5P3}zdQTC1P!fAm5`0q=d{q;DR}_6%6@FS3ep?oPT^D{{7k^+Fe_<GZV;O&C8h~aRfM^?l"
        "X&iuS9Dr;cfNmavZytehAAxfpfpj2&b|HaxA%S@!fqEi=d?SH=B!Pb<fq^A~f+c~3CV_<}frlr7i70`JD1nSAfQ>1Dk1BwXDu9wJ"
        "fRrnMl`MdlEPt6Tf0`|SoGyQ!E`FacexWaZqcDD?Fny*meWx*fsWN=4GkmNwd#*HlurzzIHF~o(dbKurwl;aVH+Z=>c)K`vy*YQj"
        "Id;H0b;3Gz!#i}vJaoo9bI3h%%06<-K5@-IaLzz*&_Qp}LT=MSZPY_;)<kUAMQhncYT8F>+(>ENNod|mXW&a_;Y?=YO=aXxWaUs}"
        "=22qjQex;-Vd_<2>sDawSYPc~U+!C8?p<B)US05DUGZUD@?%`{WnA-TTl8pK^=e!7Y+LqjTlR2U_i<bIb6og!T=;if`FULVdtLc`"
        "UHX4s`hZ^gf?xZDVEcw(`-oxtiemhXWBiU|{E%e)l4bmpX8o0C{g-I{nQ8r-YW<yS{hw_8p>F-6Z~dfj{-$yMsB`|RbpEV${;qcZ"
        "uXz5kdH%C|{<VDmw|)M(fBw6G{=9<zzJvb2h5o{Z{=|s>#)<yNi~h-t{>zU2&5-@ilKs(>{nC~F)R+C%nElwA{o0)U+@1a1pZ(vV"
        "{o$kh<E8xNru^op{OGFu>a6_iuKez>{P3~-@w5E%wfyzB`}eu~`Mdl2z5D#X"
    ),
    "plasma": (
        "3<rh~2Zs{|i4_Kl7zT?Q28<mBjUNS$Aq9^k1&}2LktYR`DFu@&1(YoWlrIF8F$9(~1eY`fm^K8MI0TtG1e!Yonmq%XKLeaV1Drww"
        "okRnkMFXBk0-s3&pGpFtOah@!0-;X=qEP{&QURk>0i#v{qgMf>SplS40Hs_2rCtD~UjU|I0H$I9repx8WdNsV0H<gGr)mJFYyhZj"
        "0H|*OsBi$Nasa4v0H}2UsCEIUcmb$+0jPTdsC)vaegmg}1E+xmr-B5hgaxLB2BwAwricfni3p{O38ah)q>c=vj}4=c4x^F}qLUDz"
        "l@Xzq5}=n8pqUh(niZa#7oMFMot_z-pBkH>8=ImWnxh?=q#l^1AD5>gm#89^sUwxDB$TWrldUF_t|yVND3Gu!kFhI{vMi3YEseD<"
        "jJ7X}w=jyhGKsk}h`Ka~yETTqHif-6guXa~zd3@yJAuJGfWke1!#;n+KYqnPea1n2$3lC^M0&|ZdCEq3%SU(2NOsLhb<Rq4&r5XB"
        "O>@ysa?ww5(ok^IQE${zZq-w5)>UoSR&3W-YuH$7*;#4YT4>u_XWU(8++JqgUuE84WZz+9-(q6mWMScDVB%(A<7Z#vXkO%MUFB<B"
        "<!oE#ZCdAUTIg_D=y6!-a#!keR_b(B>vmM^cU0_nQ|)<D?R!z~d{FOwPw#$C@PJM5flcv(O!9<F@`XzChDq~>Nc4$E^omFIi$?X0"
        "MfQ$F_K!pMkwW*9LHCnE_?1BTmOuEIKKYqF`I<cXoICoRI{KeF`k*=cqB#4bH~XYE{H8Vhr#1YkH2kVF{H!wktug(tG5xSG{jx9p"
        "vo8I$E&aAF{kSasxhws<EB(AG{k|#vz$yK~DE-4I{lq8z#wPs7Cj7}J{L3Z$%q9HJCHv4M`_Ux((<J)UB>L7Q`q(7-*(CYfB>3GV"
        "_}?V=;3W6rCHCYc_T?q@=O*>(CiLni^Xw+`?k4i^Ci3wn@$)9|^(FB3Bk%Yj"
    ),
    "viridis": (
        "L;+Mp0#!r<S49O_MFv_$2wO%8Tt*9CMhss@4q-<RVn-2UM-pX66lO;iXGa!kM;K~I8EZ%yY)Bk#NF8rT9&kt?aY!L@NFsAcBXmb4"
        "bw?(4M<;hjD0oLIc}FXHM=X0rEqq2Vd`2*RMlpUxGJi!he?>KbMK*y%H-SVsf<rokLpy^*JcL3$ghD=rLO_K<L54v>hCoAyKtzW>"
        "MTb8}h(1V&K1qo^N{Ky7i9Jk-JWYx`PKrBFiaSw?I#P=|Q;RuNi#b(`I97`|SBy7Uj5k?~Hd>4}TZ}baj5S@1G+vD~UyU<hjWc15"
        "GGdJ~V~sInjWK17F=mZ0XN@pujW219FKUf0YmP2#jxKGEEpCo2Z;mW*jx2GGEOL%3bB-%?jw*GIDt3-4caAA|jwyMLD0+@4dX6Z2"
        "jwgJMCw-15evT%8jwXPPCV`G6f{rDFjU<GPB!!J6hK(bKjU$MSBZ-Y7iH#zPjUtPUA&iY7jf^3Vj3AGUAdrk8k&GXbj31MWAC!w9"
        "m5U#iiyoJX9+-+AnTj5niXNJY9-E0CoQWQth#sDZ9-oLFpobr!haaMbAESmKq=g`*g(0SeA*X~Qr-UP@gCnVeB&vcXtAQr0fhVni"
        "D6W4guYW4Aek-wkEU|qqvV1SIdoZ+mGPQa$ws|$Tcs96qIJtH?xpq6cbv?UuKD={4y>ddnaYVjwMZa%Hz-~#wZA-#zO~PwW!)Z~("
        "Xj8>!RmNsl#${Q@WLwB$Uddr#$zWp2Uu4T&XUtq_%v)>CS#8c(aL!h8&sB8LRCmx)dC^gP(ocTUPJz=*gVRff)JcfdM~l@)jn+hv"
        ")<crlL6z4(m)Jg<*gT!tI-l7%qS`m5+BK)!GpgG%t=urL+%B@+EVbP$x7{ha-Y31@Ccob#!rvmr-yz4~AIjh!&EOr+;T+Q88`R+%"
        "*Wwx4;uzfG7~kU<;o}(O;~3}U8R_I1?Bp8m<s0$k9P{NK_U0e><{|p#BK_wi"
    ),
    "cividis": (
        "03uBQBToP$Pyi%S03}oaCRG3?R{$qj04Q4kC|m$3UH~d!04ibtD`WsHW&kW_04-?%E^7cUZ2&KC05EU>FmM1dZ~!rI1Tt_4GjIzta1Jz"
        "Z5jAfVHg6U-Zx}ak8aQtpIBp#|ZXY^sAv<m&J8mRAZY4c!Cp~Q_K5Z&LZ7V-*EI@58L2NHVY%oG>F+*%JL~JxfY&At}Hb!hWMr=4oY&l"
        "45I!J3fNozeyYd%YBKTB&sOlv_+YeG$HLr!Z%PisX_YerCOM^S4?QEN$3Yf4jVOH^!3RBTOEY))2ePF8GBS8PyNY*AQjQdw+MT5MEWY*"
        "kxrR$OgYU2RxhZCPGzSzm2hUu|1pZd_q*U14rsVs2k!ZeV0?VPtP%Wp83;Z)0X}WM^+>XmDm}aA#?7Xlih1YjJ67acXRFYi)6CZE|gHa"
        "&B*OZg6vNaC2~Rb8&KWa&vTZb98icb#!%gb#--ic6N7nc6fMpd3bkud3SnxcYAwxe0z9(e0Y9+cz=C(fPQ#^e|Um`c!Pj=gn@X4f_R04"
        "c!q;`hlF^Dg?NdEc#4L2i-&lOh<J^Oc#es9kBWDYi+7QXcan^ElZ|(jj(3%hcb1QLmymXtk#?DqcAArRo0E2&ly;q!b)J@WpO$r?mvy0"
        "-bfTGbqndQ2nslX`bEcegr=4@Co^z?5a;l$ltDthMp>eIEajv3qucL6Vq;RpNaI&Uvv!-vfr*E~WZnmjzx2kQpt8KZfZMv*%yRB@zu4}"
        "!oYre2*zp!e-v1!7xX~VN<#I$I|wP(h)XUDc?$hT$5xMj+@WXrl_%)4XFykgG0V$Z!{(7s^OzhKkAU(~@~)xuuZ!(G?IT-d~0*~MDg##"
        "-CQS=`82-pN<r%2wdZRpHE3;>=Uy%~IsfQRUB2=Fm^*(N5{oP3qH3>(oo^)k^KwNbc81@7PB1*+lZ%L-X1~^xHu7+&}i+J^0=``QJMF;"
        "5hr?HvQr>{o^zJ<uv`~HvQ)}"
    ),
    "turbo": (
        "FcLd46+$u?N;Df$H6B<tAzwEmWjH2mIVo~FEO|RGe>^gUJT;3wH<3O%mOnk5KtQ2DL#9DRt3gPxLQAznPP#)-zC%;OL{`T{Sj$CQ"
        "&P86*MPSxNW7$S#-9~8OMr-3nZRSRB=tgtvMs@8*c<@Gg@<x61Mt}B3g7`&*`9+8OMTz`GjQvB7{X&ucL6iPKmi|AO{yv-jJe~bJ"
        "p!_+a{5YliHmLbDs`xXk_A#&ZFR}A2wDBvp?<%?ND7)(>z3C;u<|D%7A;jSz#@`;v+#So>9L?7o&(s>x(izjw7}d-e*UA^!#~0ef"
        "7u>=Z-oF^&y%^!T8RNJb<hC2-v>oTM9_X(i>8v8_sU+;CC+(vt?w~C1oiFg3GVzx+^OQLBkvsH_KlO@2_J>CIgG%^-P5FFL`FU0P"
        "c3Jy!UHflg{A^|XXlearZT(_#{a<wcTzLLjeEwE|{!@hhP>23ai~dWF{z#JkMwR|VnEpbW{Xm}mKB4?Qr2IRk`#P!nIjs6OuK72y"
        "_%^fnHMaLPx%D)=^fbQnG{EvR!|^l4?=#5mGs^8V&FeJJ>NL^lG}Pxc*5x(W<2BmiHr?Ph-`+Oi+&AOeH|5wk=hrys)i~<YIqcCn"
        "?aw*y%{lPPI`YUm^Ts;##5(rEI`_ai_`W&$ygB*0IQq9Y`?WXwvo`#&HT<qL{i`$msWSbhG5w=3{-H1ao-Y2IE&iA+{go^Ik}3U<"
        "DE*8l{D~&~h9vugBm00N`h6h!dLQ|B9{6+|_i-EdZW{J$81-lu^ko+FV-@mX6!BdX?^+S=SP<=15A0G7>QD{oO%3Qv4CYA-<wgqQ"
        "L<-_U3E)5o-aZK3JO|r42iZ6V*ER;$GzHW$1=27D&@TkeEd<Le1IZ}^$0!5ECIZ7G0>C2zz99m;9|5@@0k#|gv>O4j83C>s0jw4Q"
        "sTBdH6ak|W0iY29oe%+<4gr@90h9~@kqZHi3IU4=0fz_yga-kE1_FHr0(t}j"
    ),
    "jet": (
        "004gg0E7SlhyVbM005By0G0p%ng9Tw005%^0H^=}tN;M9006cC0J;DGzW@Nk0077U0L%aY(EtF|007zm0Nwxq;{X8Y008U&0Pz3-"
        "^#B0+008~~0RI30{{R60009301pfdC{{RgC01*EG6#oDi{{S5S03iPWB>w;?{{Sri05JamH2(lN{{TGy06_l$ME?Lt{{T$?08sw`"
        "RQ~{2{{US70AT+BWd8tY{{U?N0C4{RbpHT&{{Vdd0D%7hg#Q4D{{W2t0FeIxl>Y#j{{Wo-0HFT>r2hb@{{XE20I>f6wEqCO{{X!I"
        "0KoqM#Qy-u{{YPY0MP#c)c*k3{{Y<n0O0xn<o5#T^abqk2=MI;^y&}z=Mwzn760KF|J@w_+8_VdBLCDS|IjJ_%`E@QFaO6f|HC%_"
        "z&ZcDJpZ~s|F=T_vqt~0N&l@(|Ef>_rc?i;R{x+`|D9a_nqU8xWB-$8|Bz|_jcoskaQ}vL|ATh_fO-FYeE)fX|8|4_bB6zLiT`Yk"
        "|7no_W|RM8mj7Rx|6HB_S)l(`qyJN;|4*v_Os)S(u>VH0|3bI_Kf3=sz5hAD|2D(_GROZf%Kt3Q|0&S_CDi{S*Z&{d{~X=_7~uaE"
        "<o^=q{}1Z_4DJ62@%#n!_yYIz0Q&F%{_Oz&=>Y%b0RQ3u|K0%q+5rF80RPhf|IYyb%K-n#0RO}Q|G)tMy#W8Y0ROcB|FHo7t^oh4"
        "0RN@{|Dyo^p8)@x0RNZ(|C9j#kO2RT0RM>q|AhemfdK!00RMUb|8@ZXa{&Ku0RL+M|7QUIWB~tQ0RLP7|5*V4RRI4{0RK$@|4IP="
        "Mgadp0RKM#|2qKxHvs=M0RJ!m|11FiC;<N@0RJHX{~ZAT8UX(m0R9pH`VRp03jpy40PF(*=l}rY007<q0NMZm)c^p|007JY0LTCU"
        "!vFxk006oG0JZ=Cu>b(9005`}0HXi^p8x=w005Q%0FeLyjQ{|M004vl0Dk}g"
    ),
}


def palette(name: str) -> Bytes:
    """Return the colour table of a colormap.

    Args:
        name: Name of the colormap; `seewhy.list_colormaps()` lists them.

    Returns:
        Read-only uint8 array of shape (256, 3): the RGB colour of each heat, from low to high.

    Raises:
        ArgumentError: If there is no colormap of this name.
    """
    return _table(one_of("colormap", name, COLORMAPS))


@cache
def _table(name: str) -> Bytes:
    """Decode the table of a known colormap."""
    if name == "grey":
        table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
        table.flags.writeable = False
        return table
    return np.frombuffer(base64.b85decode(_TABLES[name]), np.uint8).reshape(256, 3)
